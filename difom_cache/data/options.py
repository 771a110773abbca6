"""The options that say where records come from, for every command that reads them."""

from pathlib import Path

from difom_cache.data.source import DataSource
from difom_cache.errors import SettingsError
from difom_cache.options import Config


class DataOptions(Config):
    """Where records come from."""

    data: Path = Path("data")
    "Manifest, folder in a known layout or any folder inside it, COCO file, video or folder of videos."
    images: Path | None = None
    "Folder of pictures, in place of --data."
    masks: Path | None = None
    "Folder of their masks, or a COCO file; with --images."
    unlabelled: bool = False
    "Pictures without a mask are meant."
    group_by: str | None = None
    "What belongs together: a regular expression on file names, or FILE.csv:COLUMN."
    every: str | None = None
    "Between the frames taken of videos, such as 0.5s (the default) or 500ms."

    def find_source(self) -> DataSource:
        """Return what was given as data.

        Raises:
            SettingsError: both --data and --images, or neither.
        """
        if self.images is not None and "data" in self.model_fields_set:
            raise SettingsError(f"--data {self.data} and --images {self.images}: give one of them")
        data = None if self.images is not None else self.data
        return DataSource(data, self.images, self.masks, self.unlabelled, self.group_by, self.every)
