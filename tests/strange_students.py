"""Students from outside the package: a plain module, and what makes one; imported by name as a user's own code is."""

import torch
from torch import Tensor, nn

from difom_train import StudentSettings, build_student, wrap_student

LEVELS = {"backbone.2": 4, "backbone.4": 8}


class Small(nn.Module):
    """A stem and a backbone of strides 4 and 8, and a head whose logits are of stride 4; returned as `form` says."""

    def __init__(self, form: str = "tensor", classes: int = 1) -> None:
        super().__init__()
        self.form = form
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 2, 2),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, 2, 2),
            nn.ReLU(inplace=False),
            nn.Conv2d(6, 8, 2, 2),
        )
        self.head = nn.Conv2d(8, classes, 1)
        self.side = nn.Conv2d(8, classes, 1)

    def forward(self, pixels: Tensor) -> object:
        deep = torch.relu(self.backbone(pixels))
        up = nn.functional.interpolate(deep, scale_factor=2.0, mode="bilinear")
        logits, aside = self.head(up), self.side(deep)
        forms = {
            "tensor": logits,
            "dict": {"out": logits, "aux": aside},
            "tuple": (logits, aside),
            "named": {"logits": logits},
            "none": {"mask": logits},
            "flat": logits.flatten(1),
        }
        return forms[self.form]


def build(settings: StudentSettings) -> nn.Module:
    """What `--student strange_students:build` names."""
    return wrap_student(Small(), LEVELS, neck=settings.neck)


def build_network(settings: StudentSettings) -> nn.Module:
    """A plain network, which a run of the wrapped one can be loaded with."""
    return Small()


def make_small() -> nn.Module:
    """What a stranger has: a function without arguments that returns a network."""
    return Small("dict", classes=2)


class ThreeClasses(Small):
    """A network of another task."""

    def __init__(self) -> None:
        super().__init__(classes=3)


def build_unet(settings: StudentSettings) -> nn.Module:
    """A student that knows its neck, under another name."""
    return build_student("unet", width=settings.width or 2, neck=settings.neck)


NO_FACTORY = 3
