"""Leave-one-out hit rates of `lookbook recommend --interactions`: see docs/outfits.md.

    hit_rate.py --model DIR --features DIR --photos FOLDER [--program lookbook] [--users N] [--seed N]

Draws users whose tastes are known over the photos of a feature table: each likes one look (the photos in which one
category in one colour covers most) and one hidden group, to which photos belong by chance, so that nothing of it can be
seen. A photo in five is new: nobody has chosen it yet. Of every user's photos one is held out; who finds it among the ten
best for one other photo of the user, or for all of them, without those that the user has, has a hit. The program answers
for the files of FOLDER, which are named as in the table. Prints a table in Markdown.
"""

import argparse
import pathlib
import subprocess
import tempfile

import implicit
import numpy as np
import polars as pl
import polars.selectors as cs
import scipy.sparse

TOP = 10
# Photos that are asked for: the ten best are taken without those that the user has.
ASKED = 40
GROUPS = 20
# How a user's photos are drawn: by the look, by the hidden group, by popularity alone.
DRAWN_BY = (0.45, 0.45, 0.1)
PHOTOS_OF_USER = (5, 15)
NEW = 0.2
BLENDS = (0.1, 0.3, 0.5, 0.7, 1.0)


def main() -> None:
    options = parse()
    random = np.random.default_rng(options.seed)
    table = pl.read_parquet(str(options.features / "part-*.parquet")).filter(pl.sum_horizontal(cs.float()) > 0)
    world = World(table.select(cs.float()).fill_null(0).to_numpy(), random)
    users = [world.user(random) for _ in range(options.users)]
    tests = [it for it in map(lambda user: Test.of(world, user, random), users) if it is not None]
    train = scipy.sparse.csr_matrix(
        (np.ones(sum(len(it.kept) for it in tests), dtype=np.float32),
         ([number for number, it in enumerate(tests) for _ in it.kept], [photo for it in tests for photo in it.kept])),
        shape=(len(tests), len(table)),
    )
    print(f"{len(table)} photos, {train.nnz} events of {len(tests)} users to learn from, "
          f"{sum(it.new is not None for it in tests)} users who chose a new photo")
    rows = [("popularity", *[popular(train)] * 2)]
    rows += of_program(options, table, train)
    rows += of_implicit(train, tests)
    rows.append(("knows the tastes", lambda test: world.chances(test.user), lambda test: world.chances(test.user)))
    print("\n| by | one photo | all photos | one photo, new | all photos, new |\n| --- | --- | --- | --- | --- |")
    for name, by_one, by_all in rows:
        rates = [rate(tests, by, held) for held in ("known", "new") for by in (by_one, by_all)]
        print(f"| {name} | " + " | ".join(rates) + " |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "features", "photos"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--program", default="target/release/lookbook")
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class World:
    """Photos with looks, hidden groups and popularity."""

    def __init__(self, cells: np.ndarray, random: np.random.Generator) -> None:
        self.photos = len(cells)
        self.look = cells.argmax(axis=1)
        self.looks = [look for look in np.unique(self.look) if (self.look == look).sum() >= 8]
        self.group = random.integers(GROUPS, size=self.photos)
        self.popularity = random.lognormal(0.0, 1.0, size=self.photos)
        self.is_new = random.random(self.photos) < NEW

    def user(self, random: np.random.Generator) -> tuple[int, int, list[int]]:
        """A look, a hidden group, and the photos that the user chose, in order."""
        look, group = int(random.choice(self.looks)), int(random.integers(GROUPS))
        chances = self.chances((look, group))
        count = int(random.integers(*PHOTOS_OF_USER, endpoint=True))
        return look, group, random.choice(self.photos, size=count, replace=False, p=chances).tolist()

    def chances(self, user: tuple) -> np.ndarray:
        """The probability of each photo to be the next that the user chooses."""
        parts = [self.look == user[0], self.group == user[1], np.ones(self.photos, dtype=bool)]
        shares = [self.popularity * part / (self.popularity * part).sum() for part in parts]
        return sum(share * by for share, by in zip(shares, DRAWN_BY))


class Test:
    """A user, the photos to learn from, one of them to ask with, and those held out."""

    def __init__(self, user: tuple, kept: list[int], asked: int, known: int, new: int | None) -> None:
        self.user, self.kept, self.asked, self.known, self.new = user, kept, asked, known, new

    @staticmethod
    def of(world: World, user: tuple, random: np.random.Generator) -> "Test | None":
        *kept, known = [photo for photo in user[2] if not world.is_new[photo]] or [None]
        if not kept:
            return None
        new = next((photo for photo in reversed(user[2]) if world.is_new[photo]), None)
        return Test(user, kept, int(random.choice(kept)), known, new)


def rate(tests: list[Test], scores, held: str) -> str:
    """The hit rate at ten and its standard error, in percent."""
    hits = []
    for test in tests:
        wanted = getattr(test, held)
        if wanted is None:
            continue
        of_photos = np.array(scores(test), dtype=np.float64)
        of_photos[test.kept] = -np.inf
        best = np.argsort(-of_photos, kind="stable")[:TOP]
        hits.append(wanted in best[np.isfinite(of_photos[best])])
    mean = float(np.mean(hits))
    return f"{100 * mean:.1f} ± {100 * (mean * (1 - mean) / len(hits)) ** 0.5:.1f}"


def popular(train: scipy.sparse.csr_matrix):
    counts = np.asarray(train.sum(axis=0)).ravel()
    return lambda test: counts


def of_program(options: argparse.Namespace, table: pl.DataFrame, train: scipy.sparse.csr_matrix) -> list:
    rows = []
    with tempfile.TemporaryDirectory() as place:
        events, output = pathlib.Path(place) / "events.parquet", pathlib.Path(place) / "answers"
        pairs = train.tocoo()
        ids = table["photo_id"].to_numpy()[pairs.col]
        pl.DataFrame({"user": pairs.row, "photo_id": ids}).write_parquet(events)
        for blend in (0.0, *BLENDS):
            flags = ["--interactions", events, "--blend", str(blend)] if blend else []
            answers = ask(options, table, output, flags)
            name = f"**lookbook**, blend {blend}" if blend else "**lookbook**, looks alone"
            rows.append((name, by_one(answers), by_all(answers)))
    return rows


def ask(options: argparse.Namespace, table: pl.DataFrame, output: pathlib.Path, flags: list) -> np.ndarray:
    """The program's scores, `[asked, photos]`; minus infinity for what is not among the best."""
    command = [options.program, "recommend", "--photos", options.photos, "--output", output]
    command += ["--model", options.model, "--features", options.features, "--top", str(ASKED), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    places = {name: place for place, name in enumerate(table["file_name"])}
    of_id = {photo: place for place, photo in enumerate(table["photo_id"])}
    scores = np.full((len(table), len(table)), -np.inf, dtype=np.float32)
    answers = pl.read_parquet(output / "recommendations.parquet")
    for path, neighbour, score in answers.select("path", "neighbour_id", pl.coalesce("score", "correlation")).iter_rows():
        place = places.get(pathlib.Path(path).name)
        if place is not None and neighbour in of_id:
            scores[place, of_id[neighbour]] = score
    return scores


def of_implicit(train: scipy.sparse.csr_matrix, tests: list[Test]) -> list:
    models = {
        "implicit, cosine": implicit.nearest_neighbours.CosineRecommender(K=ASKED + 1, num_threads=2),
        "implicit, BM25": implicit.nearest_neighbours.BM25Recommender(K=ASKED + 1, num_threads=2),
        "implicit, ALS": implicit.als.AlternatingLeastSquares(factors=64, iterations=20, random_state=0, num_threads=2),
    }
    rows, numbers = [], {id(test): number for number, test in enumerate(tests)}
    for name, model in models.items():
        model.fit(train, show_progress=False)
        photos = train.shape[1]
        alike = np.full((photos, photos), -np.inf, dtype=np.float32)
        for photo in range(photos):
            found, scores = model.similar_items(photo, N=ASKED + 1)
            alike[photo, found[scores > 0]] = scores[scores > 0]
        best = np.full(train.shape, -np.inf, dtype=np.float32)
        for number in range(len(tests)):
            found, scores = model.recommend(number, train[number], N=ASKED)
            best[number, found] = scores
        rows.append((name, by_one(alike), lambda test, best=best: best[numbers[id(test)]]))
    return rows


def by_one(scores: np.ndarray):
    return lambda test: scores[test.asked]


def by_all(scores: np.ndarray):
    """The sum over the user's photos, of what is among the best of each."""
    known = np.where(np.isfinite(scores), scores, 0.0)
    return lambda test: np.where(np.isfinite(scores[test.kept]).any(axis=0), known[test.kept].sum(axis=0), -np.inf)


if __name__ == "__main__":
    main()
