"""People on foot and astride: walkers, cyclists, motorcyclists."""

from __future__ import annotations

import numpy as np

from engines.world import mesh
from engines.world.mesh import (
    BRAKE,
    HEADLAMP,
    PAINT,
    TAIL,
    Mesh,
    ball,
    box,
    hull_of_rings,
    join,
    limb,
    linear,
    polygon,
    wheel,
)
from engines.world.shapes import (
    CLOTHES,
    DARK,
    HAIRS,
    HUB,
    PAINTS,
    PHASES,
    PLATE,
    RED_LAMP,
    SKINS,
    TROUSERS,
    TYRE,
    WHITE_LAMP,
    Shape,
    centred,
    panel,
    pick,
)
from perception.messages import Float


def pedestrian(rng: np.random.Generator, *, umbrellas: bool = False) -> Shape:
    """A man, woman or child, perhaps with a bag; with an umbrella, where it rains."""
    child = rng.random() < 0.1
    height = rng.uniform(1.1, 1.45) if child else rng.normal(1.72, 0.08)
    height = float(np.clip(height, 1.1, 1.95))
    stout = rng.uniform(0.88, 1.18)
    top, trousers, skin, hair = (pick(rng, c) for c in (CLOTHES, TROUSERS, SKINS, HAIRS))
    shoes = DARK * rng.uniform(0.4, 2.0)
    coat, long_hair, bag = rng.random() < 0.3, rng.random() < 0.4, rng.random()
    umbrella = umbrellas and rng.random() < 0.55
    umbrella_colour = pick(rng, CLOTHES)
    bag_colour = pick(rng, CLOTHES)

    def drawing(phase: int) -> Mesh:
        swing = np.sin(2 * np.pi * phase / PHASES)
        lift = np.cos(2 * np.pi * phase / PHASES)
        hip, shoulder, chin = 0.5 * height, 0.815 * height, 0.87 * height
        parts = []
        for sign, turn, raised in ((1, swing, max(lift, 0.0)), (-1, -swing, max(-lift, 0.0))):
            y = sign * 0.09 * stout
            foot_x, foot_z = 0.27 * height * 0.72 * turn, 0.05 + 0.06 * raised
            knee = (foot_x * 0.5 + 0.05 + 0.06 * raised, y, hip * 0.53)
            parts += [
                limb((0, y, hip + 0.02), knee, 0.17 * stout, top if coat else trousers),
                limb(knee, (foot_x, y, foot_z + 0.04), 0.13 * stout, trousers),
                box((0.25, 0.1, 0.09), (foot_x + 0.05, y, foot_z), shoes),
            ]
            arm_x = -0.16 * height * turn
            elbow = (arm_x * 0.5 - 0.03, sign * 0.25 * stout, shoulder - 0.165 * height)
            hand = (arm_x + 0.06, sign * 0.25 * stout, shoulder - 0.30 * height)
            if umbrella and sign > 0:
                elbow, hand = (0.1, 0.24 * stout, shoulder - 0.16 * height), (0.24, 0.18, shoulder - 0.02)
            parts += [
                limb((0, sign * 0.2 * stout, shoulder), elbow, 0.115, top),
                limb(elbow, hand, 0.09, top),
                box((0.07, 0.06, 0.1), (hand[0], hand[1], hand[2] - 0.05), skin),
            ]
        bottom = hip - (0.13 * height if coat else 0.02)
        parts += [
            hull_of_rings(
                [_oval(0.13 * stout, 0.185 * stout, bottom), _oval(0.125 * stout, 0.17 * stout, hip + 0.12 * height),
                 _oval(0.13 * stout, 0.225 * stout, shoulder - 0.02), _oval(0.06, 0.09, shoulder + 0.04)], top),
            limb((0.01, 0, shoulder), (0.02, 0, chin + 0.02), 0.1, skin),
            ball((0.1, 0.08, 0.125), (0.03, 0, chin + 0.105), skin),
            ball((0.108, 0.092, 0.12), (0.005, 0, chin + 0.135), hair),
        ]  # fmt: skip
        if long_hair:
            parts.append(box((0.07, 0.15, 0.24), (-0.07, 0, chin + 0.02), hair))
        if bag < 0.25:
            parts.append(box((0.15, 0.29, 0.4), (-0.2, 0, shoulder - 0.22), bag_colour, mesh.PLAIN, (0.8, 0.8)))
        elif bag < 0.42:
            parts.append(box((0.28, 0.1, 0.24), (0.02, -0.33 * stout, hip - 0.02), bag_colour))
        if umbrella:
            tip = 0.18 + height
            angle = np.arange(8) * np.pi / 4
            rim = np.c_[0.16 + 0.52 * np.cos(angle), 0.14 + 0.52 * np.sin(angle), np.full(8, tip)]
            crown = rim * [0.3, 0.3, 1] + [0.112, 0.098, 0.2]
            parts += [limb((0.24, 0.18, shoulder - 0.1), (0.16, 0.14, tip + 0.2), 0.03, DARK),
                      hull_of_rings([rim, crown], umbrella_colour, cap_bottom=True)]  # fmt: skip
        return join(parts)

    return centred("pedestrian", [drawing(i) for i in range(PHASES)], stride_m=0.8 * height)


def _oval(along: float, across: float, z: float) -> Float:
    angle = np.arange(6) * np.pi / 3
    return np.asarray(np.c_[along * np.cos(angle), across * np.sin(angle), np.full(6, z)])


def bicycle(rng: np.random.Generator) -> Shape:
    """A bicycle and its rider."""
    frame = pick(rng, PAINTS)
    bright = rng.random() < 0.3
    colours = (
        linear("#c6d24a") if bright else pick(rng, CLOTHES),
        pick(rng, TROUSERS),
        pick(rng, SKINS),
        pick(rng, CLOTHES) if rng.random() < 0.65 else pick(rng, HAIRS),
    )
    lean = rng.uniform(0.12, 0.34)
    saddle = rng.uniform(0.9, 1.0)
    basket = rng.random() < 0.25
    radius = 0.34
    hub, bracket, head, seat = (
        np.array(p) for p in ((-0.52, 0, radius), (-0.05, 0, 0.3), (0.42, 0, 0.82), (-0.2, 0, saddle))
    )
    front = np.array([0.54, 0, radius])
    bars = np.array([0.4, 0, 1.03])

    def drawing(phase: int) -> Mesh:
        angle = 2 * np.pi * phase / PHASES
        pedals = tuple(
            bracket + np.array([0.17 * np.cos(angle + turn), sign * 0.13, 0.17 * np.sin(angle + turn)])
            for sign, turn in ((1, 0.0), (-1, np.pi))
        )
        tubes = (
            (hub, bracket),
            (hub, seat),
            (bracket, seat),
            (bracket, head),
            (seat * [1, 1, 0.88], head),
            (head, front),
            (head, bars),
        )
        parts = [_rim(float(hub[0]), radius, 0.055), _rim(float(front[0]), radius, 0.055)]
        parts += [limb(a, b, 0.05, frame, sides=3) for a, b in tubes]
        parts += [
            limb(bars - [0, 0.29, 0], bars + [0, 0.29, 0], 0.035, DARK, sides=3),
            box((0.26, 0.15, 0.06), seat, DARK),
            polygon([(-0.6, 0.04, 0.62), (-0.6, -0.04, 0.62), (-0.6, -0.04, 0.7), (-0.6, 0.04, 0.7)], RED_LAMP, TAIL),
            polygon(
                [(0.52, -0.04, 0.86), (0.52, 0.04, 0.86), (0.52, 0.04, 0.94), (0.52, -0.04, 0.94)],
                WHITE_LAMP,
                HEADLAMP,
            ),
            _rider(seat + [0, 0, 0.08], bars, pedals, lean, colours, helmet_all_round=False),
        ]
        if basket:
            parts.append(box((0.3, 0.36, 0.25), (0.6, 0, 0.95), linear("#6b5a40")))
        return join(parts)

    return centred("bicycle", [drawing(i) for i in range(PHASES)], stride_m=3.2)


def _rim(x: float, radius: float, width: float) -> Mesh:
    """A bicycle wheel: a ring that is seen from both sides, and a strip that is seen from the front."""
    angle = np.arange(10) * np.pi / 5
    outer = np.c_[x + radius * np.cos(angle), np.zeros(10), radius + radius * np.sin(angle)]
    inner = np.c_[x + (radius - width) * np.cos(angle), np.zeros(10), radius + (radius - width) * np.sin(angle)]
    quads = np.stack([outer, np.roll(outer, -1, 0), np.roll(inner, -1, 0), inner], 1)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    both = np.concatenate([triangles, triangles[:, ::-1]])
    strip = box((2 * radius, 0.035, 0.1), (x, 0, radius * 0.3), TYRE)
    return (
        join(
            [
                mesh.from_triangles(both, TYRE),
                box((2 * radius * 0.72, 0.035, 0.06), (x, 0, 2 * radius - 0.09), TYRE),
                strip,
            ]
        )
        if width > 0.06
        else mesh.from_triangles(both, TYRE)
    )


def motorcycle(rng: np.random.Generator) -> Shape:
    """A motorcycle or scooter and its rider."""
    scooter = rng.random() < 0.4
    paint = pick(rng, PAINTS)
    colours = (pick(rng, CLOTHES[:9]), pick(rng, TROUSERS), pick(rng, SKINS), pick(rng, PAINTS))
    radius = 0.25 if scooter else 0.31
    wheelbase = 1.28 if scooter else 1.42
    back, front = -wheelbase / 2, wheelbase / 2
    parts = [
        wheel(radius, 0.14, (back, 0, radius), TYRE, sides=10),
        wheel(radius, 0.12, (front, 0, radius), TYRE, sides=10),
        limb((front, 0, radius), (front - 0.28, 0, 1.0), 0.13, HUB),
        limb((front - 0.3, -0.36, 1.04), (front - 0.3, 0.36, 1.04), 0.05, DARK),
        box((0.16, 0.22, 0.2), (front - 0.16, 0, 0.92), paint, PAINT),
        panel(front - 0.07, (-0.09, 0.09), (0.84, 1.0), WHITE_LAMP, HEADLAMP),
        panel(back - 0.27, (-0.09, 0.09), (0.7, 0.8), RED_LAMP, BRAKE),
        panel(back - 0.27, (-0.09, 0.09), (0.62, 0.69), RED_LAMP, TAIL),
        panel(back - 0.275, (-0.1, 0.1), (0.42, 0.56), PLATE, mesh.PLAIN),
        box((0.75, 0.28, 0.13), (back + 0.28, 0, 0.76), DARK),
        box((0.5, 0.24, 0.14), (back - 0.02, 0, 0.66), paint, PAINT),
        box((0.6, 0.32, 0.36), (-0.02, 0, 0.42), DARK * 1.6),
    ]
    if scooter:
        parts += [
            box((0.14, 0.42, 0.62), (front - 0.32, 0, 0.62), paint, PAINT),
            box((0.6, 0.36, 0.3), (back + 0.15, 0, 0.5), paint, PAINT),
        ]
    else:
        parts.append(box((0.52, 0.3, 0.26), (0.12, 0, 0.84), paint, PAINT, (0.8, 0.7)))
    if rng.random() < 0.3:
        parts.append(box((0.36, 0.4, 0.34), (back - 0.05, 0, 0.98), DARK))
    hip = np.array([back + 0.42, 0.0, 0.86])
    feet = (np.array([0.08, 0.2, 0.34]), np.array([0.08, -0.2, 0.34]))
    parts.append(
        _rider(hip, np.array([front - 0.3, 0, 1.04]), feet, 0.12 if scooter else 0.26, colours, helmet_all_round=True)
    )
    return centred("motorcycle", [join(parts)])


def _rider(
    hip: Float,
    hands: Float,
    feet: tuple[Float, Float],
    lean: float,
    colours: tuple[Float, ...],
    *,
    helmet_all_round: bool,
) -> Mesh:
    """Someone astride: torso leaning forward by `lean` metres, arms to the bars, legs to the pedals or pegs."""
    top, trousers, skin, helmet = colours
    chest = hip + np.array([lean, 0.0, 0.5])
    head = chest + np.array([0.1, 0.0, 0.24])
    shoes = DARK
    across = np.array([0.0, 1.0, 0.0])
    parts = [
        limb(hip - [0, 0, 0.04], chest, 0.36, top, sides=6),
        limb(chest, head - [0, 0, 0.1], 0.11, skin),
        ball((0.1, 0.085, 0.12), head, skin),
        ball(
            (0.15, 0.125, 0.15) if helmet_all_round else (0.135, 0.1, 0.08),
            head + [0, 0, 0.02 if helmet_all_round else 0.07],
            helmet,
            PAINT,
        ),
    ]
    for sign, foot in zip((1, -1), feet, strict=True):
        hip_side = hip + across * sign * 0.11
        knee = (hip_side + foot) / 2 + np.array([0.17, sign * 0.04, 0.1])
        shoulder, hand = chest + across * sign * 0.18 - [0, 0, 0.05], hands + across * sign * 0.24
        elbow = (shoulder + hand) / 2 + np.array([-0.03, sign * 0.06, -0.06])
        parts += [
            limb(hip_side, knee, 0.15, trousers),
            limb(knee, foot, 0.11, trousers),
            box((0.25, 0.09, 0.08), foot + [0.05, 0, 0], shoes),
            limb(shoulder, elbow, 0.11, top),
            limb(elbow, hand, 0.085, top),
        ]
    return join(parts)
