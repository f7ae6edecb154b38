"""What stands where in a kind of scene: grounds, large features, and the things placed on them."""

from dataclasses import dataclass

from pipelines.build.sources.synthetic import objects
from pipelines.build.sources.synthetic.objects import Painter
from pipelines.build.sources.synthetic.texture import Colour


@dataclass(frozen=True)
class Thing:
    """A kind of object in a layout.

    Attributes:
        category: name in the taxonomy.
        painter: draws it.
        length: shortest and longest, as a share of the scene's side.
        aspect: least and greatest width over length.
        ground: "land", "feature" (on the water, on the apron) or "any".
        weight: how often a scene of this layout picks this kind.
        aligned: turned to the scene's grid rather than freely.
    """

    category: str
    painter: Painter
    length: tuple[float, float]
    aspect: tuple[float, float]
    ground: str = "land"
    weight: float = 1.0
    aligned: bool = True


@dataclass(frozen=True)
class Layout:
    """A kind of scene.

    Attributes:
        grounds: pairs of colours that the ground is mixed from.
        feature: "sea", "apron", "road", "none".
        must: kinds that every scene of the layout has.
        may: kinds drawn by weight to fill up.
    """

    grounds: tuple[tuple[Colour, Colour], ...]
    feature: str
    must: tuple[Thing, ...]
    may: tuple[Thing, ...]


GRASS = ((118.0, 136.0, 84.0), (92.0, 112.0, 66.0))
DRY = ((176.0, 160.0, 124.0), (146.0, 134.0, 98.0))
SOIL = ((158.0, 132.0, 104.0), (128.0, 112.0, 84.0))
CONCRETE = ((168.0, 166.0, 160.0), (146.0, 146.0, 142.0))

BUILDING = Thing("Building", objects.building, (0.15, 0.25), (0.6, 0.95), weight=1.4)
POOL = Thing("Swimming Pool", objects.pool, (0.11, 0.17), (0.5, 0.75))
TENNIS = Thing("Tennis Court", objects.tennis_court, (0.18, 0.23), (0.5, 0.58))
BASKET = Thing("Basketball Court", objects.basketball_court, (0.16, 0.21), (0.54, 0.62))
SOCCER = Thing("Soccer Field", objects.soccer_field, (0.26, 0.34), (0.62, 0.68), weight=0.7)
TANK = Thing("Storage Tank", objects.tank, (0.11, 0.18), (1.0, 1.0))
FOREST = Thing("Forest", objects.trees, (0.2, 0.34), (0.7, 1.0), aligned=False)
FIELD = Thing("Cropland", objects.field, (0.24, 0.36), (0.6, 0.8), weight=1.3)
POND = Thing("Pond", objects.pond, (0.17, 0.28), (0.6, 0.9), aligned=False)
PARKING = Thing("Parking Lot", objects.parking, (0.2, 0.27), (0.55, 0.65))
TRUCK = Thing("Large Vehicle", objects.truck, (0.14, 0.18), (0.3, 0.36))
GREENHOUSE = Thing("Greenhouse", objects.greenhouse, (0.18, 0.26), (0.4, 0.55))
SHIP = Thing("Ship", objects.ship, (0.18, 0.28), (0.24, 0.3), ground="feature", aligned=False)
PLANE = Thing("Airplane", objects.airplane, (0.2, 0.28), (1.0, 1.0), ground="feature", aligned=False)

LAYOUTS: dict[str, Layout] = {
    "harbour": Layout((GRASS, DRY, CONCRETE), "sea", (SHIP,), (BUILDING, TANK, TRUCK, PARKING, FOREST)),
    "airport": Layout((GRASS, DRY), "apron", (PLANE,), (BUILDING, TRUCK, TANK, PARKING, POND)),
    "suburb": Layout((GRASS, DRY), "road", (BUILDING,), (POOL, TENNIS, FOREST, PARKING, BASKET)),
    "farmland": Layout((GRASS, DRY, SOIL), "road", (FIELD,), (FOREST, POND, BUILDING, GREENHOUSE)),
    "sports": Layout((GRASS, DRY), "none", (), (TENNIS, BASKET, SOCCER, POOL, BUILDING, PARKING, FOREST)),
    "industry": Layout((CONCRETE, SOIL, DRY), "road", (TANK,), (BUILDING, TRUCK, PARKING, POND, GREENHOUSE)),
}

#: Category of those large features that are labelled.
FEATURES = {"sea": "Water", "road": "Road"}
