"""The picture-book world: how each kind of thing is drawn.

Notes:

* Every kind is one small function in unit coordinates. To add a kind: write its function, add it to `DRAW_KIND`
  and name it in `scene.py`.
* A kind fills its box and keeps most of it in its own color (`ink.color`, `ink.shade`, `ink.tint`), because it must be
  told from the others when it is 18 pixels wide. `tests/picturebook/test_draw.py` measures both.

Paper: section 4.2 (NoCaps: kinds and colors never seen together). Notebook: 00.
"""

from __future__ import annotations

from collections.abc import Callable

from blip2_lab.picturebook.pen import Inks, Pen

# --- vehicles ------------------------------------------------------------------------------------------------


def boat(p: Pen, ink: Inks) -> None:
    p.line(ink.dark, 0.05, 0.46, 0.05, 0.46, 0.66)
    p.polygon(ink.color, 0.52, 0.03, 0.99, 0.59, 0.52, 0.59)
    p.polygon(ink.white, 0.39, 0.24, 0.39, 0.58, 0.15, 0.58)
    p.polygon(ink.color, 0.00, 0.66, 1.00, 0.66, 0.82, 0.99, 0.20, 0.99)
    p.polygon(ink.shade, 0.09, 0.81, 0.92, 0.81, 0.82, 0.99, 0.20, 0.99)


def car(p: Pen, ink: Inks) -> None:
    p.polygon(ink.color, 0.10, 0.52, 0.28, 0.15, 0.70, 0.15, 0.92, 0.52)
    p.polygon(ink.window, 0.27, 0.45, 0.36, 0.26, 0.46, 0.26, 0.46, 0.45)
    p.polygon(ink.window, 0.57, 0.45, 0.57, 0.26, 0.66, 0.26, 0.75, 0.45)
    p.box(ink.color, 0.00, 0.45, 1.00, 0.81, 0.11)
    p.box(ink.shade, 0.04, 0.71, 0.96, 0.81, 0.04)
    for x in (0.24, 0.76):
        p.disk(ink.dark, x, 0.80, 0.14)
        p.disk(ink.white, x, 0.80, 0.05)


def train(p: Pen, ink: Inks) -> None:
    p.polygon(ink.shade, 0.68, 0.00, 0.96, 0.00, 0.88, 0.20, 0.88, 0.40, 0.76, 0.40, 0.76, 0.20)
    p.box(ink.color, 0.05, 0.10, 0.46, 0.80)
    p.box(ink.shade, 0.00, 0.03, 0.51, 0.14, 0.03)
    p.box(ink.window, 0.16, 0.24, 0.36, 0.43)
    p.box(ink.color, 0.40, 0.36, 0.97, 0.76, 0.12)
    p.box(ink.shade, 0.05, 0.66, 0.97, 0.80)
    p.polygon(ink.dark, 0.86, 0.72, 1.00, 0.96, 0.80, 0.96)
    for x in (0.18, 0.44, 0.70):
        p.disk(ink.dark, x, 0.87, 0.12)
        p.disk(ink.white, x, 0.87, 0.04)


def plane(p: Pen, ink: Inks) -> None:
    p.polygon(ink.shade, 0.50, 0.28, 1.00, 0.60, 1.00, 0.73, 0.50, 0.60, 0.00, 0.73, 0.00, 0.60)
    p.polygon(ink.shade, 0.50, 0.74, 0.76, 0.91, 0.76, 1.00, 0.50, 0.93, 0.24, 1.00, 0.24, 0.91)
    p.blob(ink.color, 0.50, 0.00, 0.60, 0.14, 0.60, 0.60, 0.53, 0.96, 0.47, 0.96, 0.40, 0.60, 0.40, 0.14)
    p.disk(ink.window, 0.50, 0.16, 0.055, 0.07)


# --- animals -------------------------------------------------------------------------------------------------


def fish(p: Pen, ink: Inks) -> None:
    p.blob(ink.shade, 0.22, 0.32, 0.42, 0.06, 0.62, 0.30, 0.44, 0.45)
    p.polygon(ink.shade, 0.62, 0.50, 1.00, 0.16, 0.92, 0.50, 1.00, 0.86)
    p.blob(ink.color, 0.00, 0.53, 0.16, 0.29, 0.42, 0.22, 0.66, 0.35, 0.80, 0.51, 0.66, 0.69, 0.42, 0.82, 0.16, 0.75)
    p.polygon(ink.shade, 0.38, 0.52, 0.58, 0.42, 0.58, 0.66)
    p.disk(ink.white, 0.20, 0.44, 0.085)
    p.disk(ink.dark, 0.19, 0.44, 0.045)


def bird(p: Pen, ink: Inks) -> None:
    p.line(ink.dark, 0.05, 0.42, 0.80, 0.42, 0.97, 0.52, 0.97)
    p.line(ink.dark, 0.05, 0.58, 0.80, 0.58, 0.97, 0.68, 0.97)
    p.polygon(ink.tan, 0.80, 0.20, 1.00, 0.31, 0.80, 0.38)
    p.polygon(ink.shade, 0.00, 0.36, 0.06, 0.62, 0.30, 0.74, 0.36, 0.54)
    p.blob(ink.color, 0.16, 0.56, 0.42, 0.40, 0.52, 0.12, 0.72, 0.03, 0.88, 0.18, 0.86, 0.52, 0.70, 0.80, 0.42, 0.85)
    p.blob(ink.shade, 0.16, 0.52, 0.44, 0.42, 0.62, 0.52, 0.48, 0.70, 0.28, 0.68)
    p.disk(ink.white, 0.73, 0.22, 0.07)
    p.disk(ink.dark, 0.74, 0.22, 0.04)


def cat(p: Pen, ink: Inks) -> None:
    p.line(ink.shade, 0.12, 0.66, 0.92, 0.92, 0.88, 0.92, 0.58, 0.82, 0.48)
    p.blob(ink.color, 0.36, 0.44, 0.60, 0.44, 0.76, 0.80, 0.74, 1.00, 0.22, 1.00, 0.20, 0.80)
    p.blob(ink.white, 0.48, 0.62, 0.59, 0.80, 0.55, 0.97, 0.41, 0.97, 0.37, 0.80)
    p.polygon(ink.color, 0.12, 0.34, 0.10, 0.00, 0.42, 0.16)
    p.polygon(ink.color, 0.84, 0.34, 0.86, 0.00, 0.54, 0.16)
    p.disk(ink.color, 0.48, 0.36, 0.37, 0.26)
    for x in (0.33, 0.63):
        p.disk(ink.white, x, 0.34, 0.085)
        p.disk(ink.dark, x, 0.35, 0.05)
    p.polygon(ink.dark, 0.42, 0.44, 0.54, 0.44, 0.48, 0.51)


def turtle(p: Pen, ink: Inks) -> None:
    p.disk(ink.tint, 0.87, 0.42, 0.13, 0.15)
    p.polygon(ink.tint, 0.74, 0.48, 0.96, 0.52, 0.84, 0.78, 0.66, 0.76)
    p.polygon(ink.tint, 0.10, 0.68, 0.00, 0.80, 0.20, 0.78)
    for x in (0.14, 0.56):
        p.box(ink.tint, x, 0.68, x + 0.19, 0.92, 0.07)
    p.dome(ink.color, 0.42, 0.74, 0.40, 0.62)
    p.box(ink.shade, 0.00, 0.68, 0.84, 0.78, 0.05)
    p.polygon(ink.shade, 0.30, 0.34, 0.54, 0.34, 0.62, 0.56, 0.22, 0.56)
    p.disk(ink.dark, 0.90, 0.38, 0.04)


# --- plants --------------------------------------------------------------------------------------------------


def tree(p: Pen, ink: Inks) -> None:
    p.polygon(ink.tan, 0.41, 0.55, 0.59, 0.55, 0.64, 1.00, 0.36, 1.00)
    for x, y, r in ((0.24, 0.48, 0.24), (0.76, 0.48, 0.24), (0.50, 0.27, 0.27), (0.50, 0.54, 0.22)):
        p.disk(ink.color, x, y, r)
    for x, y in ((0.42, 0.16), (0.20, 0.44), (0.60, 0.42), (0.78, 0.48)):
        p.arc(ink.shade, x, y, 0.10, 0.045, 20, 160)


def flower(p: Pen, ink: Inks) -> None:
    p.line(ink.leaf, 0.08, 0.50, 0.50, 0.50, 0.96)
    p.blob(ink.leaf, 0.52, 0.97, 0.62, 0.83, 0.84, 0.80, 0.74, 0.94)
    p.blob(ink.leaf, 0.48, 0.97, 0.38, 0.83, 0.16, 0.80, 0.26, 0.94)
    for x, y in ((0.50, 0.15), (0.76, 0.33), (0.66, 0.61), (0.34, 0.61), (0.24, 0.33)):
        p.disk(ink.color, x, y, 0.15)
    p.disk(ink.color, 0.50, 0.40, 0.18)
    p.disk(ink.white, 0.50, 0.40, 0.12)


def cactus(p: Pen, ink: Inks) -> None:
    p.line(ink.color, 0.19, 0.11, 0.34, 0.11, 0.60, 0.50, 0.60)
    p.line(ink.color, 0.19, 0.50, 0.46, 0.89, 0.46, 0.89, 0.20)
    p.box(ink.color, 0.34, 0.00, 0.66, 0.99, 0.15)
    for x, y in ((0.44, 0.16), (0.56, 0.32), (0.44, 0.50), (0.56, 0.68), (0.44, 0.84), (0.11, 0.42), (0.89, 0.30)):
        p.line(ink.white, 0.035, x, y, x, y + 0.06)


# --- food ----------------------------------------------------------------------------------------------------


def apple(p: Pen, ink: Inks) -> None:
    p.line(ink.dark, 0.07, 0.50, 0.32, 0.54, 0.05)
    p.blob(ink.leaf, 0.55, 0.18, 0.66, 0.02, 0.90, 0.02, 0.80, 0.18)
    p.blob(ink.color, 0.50, 0.29, 0.76, 0.20, 0.96, 0.42, 0.90, 0.76, 0.68, 0.99, 0.50, 0.94,
           0.32, 0.99, 0.10, 0.76, 0.04, 0.42, 0.24, 0.20)  # fmt: skip
    p.blob(ink.tint, 0.17, 0.42, 0.28, 0.32, 0.28, 0.44, 0.20, 0.58)


def carrot(p: Pen, ink: Inks) -> None:
    for tip in ((0.62, 0.00), (0.90, 0.10), (1.00, 0.38)):
        p.line(ink.leaf, 0.11, 0.72, 0.28, tip[0] * 0.94 + 0.02, tip[1] * 0.88 + 0.06)
    p.blob(ink.color, 0.00, 1.00, 0.22, 0.56, 0.48, 0.26, 0.66, 0.22, 0.78, 0.34, 0.74, 0.52, 0.44, 0.78)
    for x, y in ((0.44, 0.44), (0.60, 0.54), (0.30, 0.62)):
        p.line(ink.shade, 0.045, x, y, x + 0.10, y + 0.10)


def cake(p: Pen, ink: Inks) -> None:
    for x in (0.32, 0.50, 0.68):
        p.line(ink.white, 0.06, x, 0.12, x, 0.32)
        p.disk(ink.tan, x, 0.06, 0.045, 0.06)
    p.box(ink.color, 0.18, 0.27, 0.82, 0.60, 0.05)
    p.box(ink.color, 0.02, 0.55, 0.98, 0.92, 0.05)
    p.box(ink.white, 0.02, 0.55, 0.98, 0.63, 0.04)
    for x in (0.14, 0.38, 0.62, 0.86):
        p.disk(ink.white, x, 0.63, 0.07)
    p.box(ink.shade, 0.00, 0.89, 1.00, 0.99, 0.04)


def cherry(p: Pen, ink: Inks) -> None:
    p.line(ink.leaf, 0.06, 0.25, 0.66, 0.38, 0.34, 0.66, 0.06)
    p.line(ink.leaf, 0.06, 0.74, 0.66, 0.74, 0.34, 0.66, 0.06)
    p.blob(ink.leaf, 0.64, 0.08, 0.44, 0.02, 0.20, 0.12, 0.42, 0.24)
    for x in (0.25, 0.75):
        p.disk(ink.color, x, 0.75, 0.25)
        p.disk(ink.tint, x - 0.08, 0.66, 0.06)


# --- tools ---------------------------------------------------------------------------------------------------


def key(p: Pen, ink: Inks) -> None:
    p.line(ink.color, 0.14, 0.40, 0.40, 0.93, 0.93)
    p.line(ink.color, 0.12, 0.68, 0.68, 0.82, 0.54)
    p.line(ink.color, 0.12, 0.85, 0.85, 0.94, 0.72)
    p.arc(ink.color, 0.28, 0.28, 0.28, 0.15)


def umbrella(p: Pen, ink: Inks) -> None:
    p.line(ink.dark, 0.06, 0.50, 0.03, 0.50, 0.84)
    p.arc(ink.dark, 0.61, 0.84, 0.14, 0.06, 0, 180)
    p.dome(ink.color, 0.50, 0.55, 0.50, 0.49)
    p.dome(ink.shade, 0.50, 0.55, 0.18, 0.49)
    for x in (0.16, 0.50, 0.84):
        p.dome(ink.color if x != 0.50 else ink.shade, x, 0.54, 0.17, 0.09, 0, 180)


def hammer(p: Pen, ink: Inks) -> None:
    p.box(ink.tan, 0.42, 0.20, 0.58, 1.00, 0.06)
    p.polygon(ink.color, 0.00, 0.46, 0.12, 0.16, 0.34, 0.06, 0.74, 0.06, 0.74, 0.40, 0.34, 0.40, 0.18, 0.36)
    p.box(ink.color, 0.72, 0.00, 1.00, 0.46, 0.04)
    p.box(ink.shade, 0.42, 0.06, 0.58, 0.40)


def cup(p: Pen, ink: Inks) -> None:
    p.arc(ink.shade, 0.73, 0.50, 0.27, 0.11)
    p.box(ink.color, 0.00, 0.14, 0.74, 0.98, 0.12)
    p.box(ink.color, 0.00, 0.14, 0.74, 0.50)
    p.disk(ink.tint, 0.37, 0.14, 0.37, 0.12)
    p.disk(ink.dark, 0.37, 0.15, 0.29, 0.075)


def lamp(p: Pen, ink: Inks) -> None:
    p.box(ink.dark, 0.45, 0.50, 0.55, 0.92)
    p.dome(ink.shade, 0.50, 0.99, 0.32, 0.18)
    p.dome(ink.window, 0.50, 0.52, 0.14, 0.12, 0, 180)
    p.polygon(ink.color, 0.28, 0.02, 0.72, 0.02, 1.00, 0.55, 0.00, 0.55)
    p.polygon(ink.shade, 0.03, 0.48, 0.97, 0.48, 1.00, 0.55, 0.00, 0.55)


# --- toys ----------------------------------------------------------------------------------------------------


def kite(p: Pen, ink: Inks) -> None:
    p.line(ink.dark, 0.05, 0.31, 0.70, 0.30, 0.80, 0.10, 0.94)
    p.polygon(ink.color, 0.98, 0.02, 0.78, 0.64, 0.30, 0.72, 0.36, 0.22)
    p.polygon(ink.shade, 0.98, 0.02, 0.57, 0.43, 0.30, 0.72, 0.36, 0.22)
    p.line(ink.white, 0.04, 0.36, 0.22, 0.78, 0.64)
    p.line(ink.white, 0.04, 0.98, 0.02, 0.30, 0.72)
    for x, y in ((0.24, 0.84), (0.10, 0.94)):
        p.polygon(ink.color, x - 0.10, y - 0.12, x + 0.10, y + 0.05, x + 0.10, y - 0.10, x - 0.10, y + 0.05)


def ball(p: Pen, ink: Inks) -> None:
    p.disk(ink.color, 0.50, 0.50, 0.50)
    p.blob(ink.white, 0.30, 0.05, 0.43, 0.01, 0.56, 0.50, 0.43, 0.99, 0.30, 0.95, 0.43, 0.50)
    p.blob(ink.shade, 0.74, 0.08, 0.97, 0.36, 0.98, 0.62, 0.74, 0.92, 0.86, 0.50)


def drum(p: Pen, ink: Inks) -> None:
    p.line(ink.tan, 0.06, 0.04, 0.04, 0.44, 0.30)
    p.line(ink.tan, 0.06, 0.96, 0.04, 0.56, 0.30)
    p.box(ink.color, 0.06, 0.34, 0.94, 0.88)
    p.disk(ink.color, 0.50, 0.86, 0.44, 0.13)
    p.line(ink.white, 0.04, 0.09, 0.42, 0.29, 0.88, 0.50, 0.46, 0.71, 0.88, 0.91, 0.42)
    p.disk(ink.shade, 0.50, 0.34, 0.48, 0.17)
    p.disk(ink.tint, 0.50, 0.33, 0.41, 0.11)


# --- buildings -----------------------------------------------------------------------------------------------


def house(p: Pen, ink: Inks) -> None:
    p.box(ink.dark, 0.70, 0.06, 0.84, 0.36)
    p.box(ink.color, 0.10, 0.40, 0.90, 0.99)
    p.polygon(ink.shade, 0.50, 0.00, 1.00, 0.46, 0.00, 0.46)
    p.box(ink.dark, 0.57, 0.60, 0.78, 0.99)
    p.box(ink.window, 0.22, 0.56, 0.46, 0.80)


def castle(p: Pen, ink: Inks) -> None:
    for x in (0.00, 0.70):
        p.box(ink.color, x, 0.14, x + 0.30, 0.99)
        for dx in (0.00, 0.20):
            p.box(ink.color, x + dx, 0.02, x + dx + 0.10, 0.18)
        p.box(ink.window, x + 0.11, 0.30, x + 0.19, 0.46, 0.03)
    p.box(ink.shade, 0.29, 0.46, 0.71, 0.99)
    for x in (0.29, 0.45, 0.61):
        p.box(ink.shade, x, 0.36, x + 0.10, 0.50)
    p.dome(ink.dark, 0.50, 0.78, 0.13, 0.14)
    p.box(ink.dark, 0.37, 0.78, 0.63, 0.99)


def tent(p: Pen, ink: Inks) -> None:
    p.line(ink.dark, 0.05, 0.42, 0.03, 0.54, 0.20)
    p.line(ink.dark, 0.05, 0.58, 0.03, 0.46, 0.20)
    p.polygon(ink.color, 0.50, 0.12, 1.00, 0.97, 0.00, 0.97)
    p.polygon(ink.shade, 0.50, 0.12, 1.00, 0.97, 0.78, 0.97)
    p.polygon(ink.dark, 0.50, 0.42, 0.68, 0.97, 0.32, 0.97)
    p.polygon(ink.white, 0.50, 0.42, 0.44, 0.97, 0.32, 0.97)


DRAW_KIND: dict[str, Callable[[Pen, Inks], None]] = {
    "boat": boat, "car": car, "train": train, "plane": plane,
    "fish": fish, "bird": bird, "cat": cat, "turtle": turtle,
    "tree": tree, "flower": flower, "cactus": cactus,
    "apple": apple, "carrot": carrot, "cake": cake, "cherry": cherry,
    "key": key, "umbrella": umbrella, "hammer": hammer, "cup": cup, "lamp": lamp,
    "kite": kite, "ball": ball, "drum": drum,
    "house": house, "castle": castle, "tent": tent,
}  # fmt: skip
