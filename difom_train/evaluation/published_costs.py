"""What polyp models of the literature cost, as published, beside what is measured here."""

import csv
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class PublishedCost:
    """One model of the literature at batch 1.

    Attributes:
        model: its name.
        parameters_m: in millions.
        gmacs: billions of multiply-adds of one forward pass; papers call them FLOPs.
        input_px: side of the input that they were counted at.
        source: where the figures stand.
    """

    model: str
    parameters_m: float
    gmacs: float
    input_px: int
    source: str

    def gflops_at(self, input_px: int) -> float:
        """Return the operations of one pass at another input size, a multiplication and an addition counted as two.

        They are taken to grow with the input's area, as those of convolutions do.
        """
        return 2 * self.gmacs * (input_px / self.input_px) ** 2


def read_published_costs() -> tuple[PublishedCost, ...]:
    """Return the models of data_manifests/models.csv."""
    text = files("data_manifests").joinpath("models.csv").read_text(encoding="utf-8")
    return tuple(
        PublishedCost(
            row["model"], float(row["parameters_m"]), float(row["gmacs"]), int(row["input_px"]), row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    )
