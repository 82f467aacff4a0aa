"""Times scoring whole benchmarks of synthetic outputs, with figures and intervals: processor seconds of one core.

python -m tests.benchmarks.bench_scoring                       all of the eleven that there are
python -m tests.benchmarks.bench_scoring --only vqav2 --protocol official
python -m tests.benchmarks.bench_scoring --distinct            no two answers alike: no cache helps
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

from vargpt_lightning.evaluation import benchmarks
from vargpt_lightning.evaluation.base.benchmark import Record

WORDS = (
    "red",
    "blue",
    "cat",
    "dog",
    "t-shirt",
    "grass",
    "don't",
    "none",
    "two",
    "left",
    "tennis",
    "1,000",
    "98.6",
    "u.s.",
)
MME = dict.fromkeys(("existence", "count", "position", "color"), 60) | dict.fromkeys(("scene", "landmark"), 400)
MME |= {"posters": 294, "celebrity": 340, "artwork": 400, "OCR": 40, "commonsense_reasoning": 140}
MME |= dict.fromkeys(("numerical_calculation", "text_translation", "code_reasoning"), 40)
SUBJECTS = ("Accounting", "Agriculture", "Art", "Biology", "Chemistry", "Design", "Economics", "Finance", "Geography")

Pair = tuple[Record, str]


class Texts:
    """Short answers with the long tail that people's answers have; all distinct on request."""

    def __init__(self, source: random.Random, distinct: bool) -> None:
        self.source, self.distinct, self.made = source, distinct, 0
        self.known = ["yes", "no", *(self._phrase() for _ in range(60_000))]
        self.sums = list(accumulate(1 / (place + 1) for place in range(len(self.known))))

    def _phrase(self) -> str:
        self.made += 1
        words = self.source.choices(WORDS, k=self.source.choice((1, 1, 2, 3)))
        return f"{' '.join(words)} {self.made}" if self.source.random() < 0.8 else " ".join(words)

    def key(self) -> str:
        if self.distinct:
            return self._phrase()
        return self.source.choices(self.known, cum_weights=self.sums)[0]

    def keys(self) -> list[str]:
        said = [self.key() for _ in range(3)]
        return [said[min(2, int(self.source.expovariate(1)))] for _ in range(10)]

    def output(self, keys: list[str]) -> str:
        dress = self.source.choice(("{}", "{}", "{}", "{}.", "The {}", " {}\n", "The answer is {}."))
        return dress.format(self.source.choice(keys) if self.source.random() < 0.7 else self._phrase())

    def letter(self) -> str:
        dress = self.source.choice(("{}", "{}", "{}.", "({})", "The answer is {}", "It is {}. Because of the light"))
        return dress.format(self.source.choice("ABCD"))

    def yes_no(self) -> str:
        return self.source.choice(("yes", "no", "Yes", "No", "Yes.", "No, there is none", "There is a dog", ""))


def mmbench(texts: Texts) -> Iterator[Pair]:
    for number in range(4329):
        row = {"index": number % 1083 + number // 1083 * 1_000_000, "question": "What is it?", "hint": "nan"}
        row |= {letter: f"{word} {number}" for letter, word in zip("ABCD", WORDS, strict=False)}
        row |= {"D": "nan"} if number % 1083 >= 1080 else {}  # three options, three rotations
        yield row | {"answer": "A", "category": f"c{number % 20}", "L2-category": f"l{number % 6}"}, texts.letter()


def seedbench(texts: Texts) -> Iterator[Pair]:
    for number in range(14233):
        row = {"question_id": f"{number}_0", "question": "What is it?", "answer": "A", "data_type": "image"}
        row |= {f"choice_{letter}": f"{word} {number}" for letter, word in zip("abcd", WORDS, strict=False)}
        yield row | {"question_type_id": number % 9 + 1, "data_id": str(number), "segment": []}, texts.letter()


def mmmu(texts: Texts) -> Iterator[Pair]:
    for number in range(900):
        row = {"id": f"validation_{SUBJECTS[number // 100]}_{number}", "question": "What is in <image 1>?"}
        if number % 16:
            row |= {"options": "['Cohort', 'Case', 'Trial', 'None']", "answer": "B", "question_type": "multiple-choice"}
            yield row, texts.letter()
        else:
            row |= {"options": "[]", "answer": "24.5", "question_type": "open"}
            yield row, f"So the answer is {number / 3:.3f}."


def pope(texts: Texts) -> Iterator[Pair]:
    for category in ("random", "popular", "adversarial"):
        for number in range(3000):
            row = {"id": str(number), "question_id": str(number + 1), "question": "Is there a car in the image?"}
            row |= {"answer": ("yes", "no")[number % 2], "image_source": f"i{number // 6}", "category": category}
            yield row, texts.yes_no()


def mme(texts: Texts) -> Iterator[Pair]:
    for category, rows in MME.items():
        for number in range(rows):
            row = {"question_id": f"{category}/{number // 2}.jpg", "question": f"Is it {number}?"}
            yield row | {"answer": ("Yes", "No")[number % 2], "category": category}, texts.yes_no()


def gqa(texts: Texts) -> Iterator[Pair]:
    for number in range(12578):
        key = texts.key().replace("none", "red")
        yield (
            {"id": str(number), "imageId": f"n{number % 398}", "question": "What?", "answer": key},
            texts.output([key]),
        )


def scienceqa_img(texts: Texts) -> Iterator[Pair]:
    for number in range(2017):
        row = {"id": str(number), "question": "Which?", "choices": ["Africa", "Asia", "Europe"], "answer": number % 3}
        yield row | {"hint": "", "grade": f"grade{number % 12 + 1}", "subject": "natural science"}, texts.letter()


def vqav2(texts: Texts) -> Iterator[Pair]:
    for number in range(214354):
        keys = texts.keys()
        answers = [{"answer": key, "answer_confidence": "yes", "answer_id": place} for place, key in enumerate(keys, 1)]
        row = {"question_id": number, "question": "Is it a dog?", "answers": answers, "image_id": number // 5}
        yield row | {"answer_type": ("yes/no", "number", "other")[number % 3]}, texts.output(keys)


def textual(size: int, **more: str) -> Callable[[Texts], Iterator[Pair]]:
    def make(texts: Texts) -> Iterator[Pair]:
        for number in range(size):
            keys = texts.keys()
            row = {"question_id": str(number), "question": "What is it?", "answers": keys}
            yield {**row, **more}, texts.output(keys)

    return make


MAKERS: dict[str, Callable[[Texts], Iterator[Pair]]] = {
    "mmbench": mmbench,
    "seedbench": seedbench,
    "mmmu": mmmu,
    "pope": pope,
    "mme": mme,
    "gqa": gqa,
    "textvqa": textual(5000),
    "vqav2": vqav2,
    "scienceqa_img": scienceqa_img,
    "okvqa": textual(5046),
    "vizwiz": textual(4319, category="other"),
}


def seconds(name: str, protocol: str, distinct: bool) -> tuple[float, float, int, dict[str, float]]:
    """(processor seconds of scoring, of aggregation, number of questions, figures) of one benchmark."""
    module = benchmarks.get(name)
    records, outputs = zip(*MAKERS[name](Texts(random.Random(0), distinct)), strict=True)
    start = time.process_time()
    scores = [module.score(output, record, protocol=protocol) for output, record in zip(outputs, records, strict=True)]
    scored = time.process_time()
    figures = module.aggregate(records, scores, protocol=protocol)
    return scored - start, time.process_time() - scored, len(scores), figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(MAKERS), help="names of benchmarks, with commas")
    parser.add_argument("--protocol", default="lmms_eval")
    parser.add_argument("--distinct", action="store_true", help="no two answers alike")
    options = parser.parse_args()
    there = [name for name in options.only.split(",") if name in benchmarks.names()]
    print(f"{'benchmark':<14}{'questions':>10}{'score s':>9}{'figures s':>11}{'headline':>10}   ({options.protocol})")
    total = 0.0
    for name in there:
        scoring, rest, n, figures = seconds(name, options.protocol, options.distinct)
        total += scoring + rest
        print(f"{name:<14}{n:>10}{scoring:>9.2f}{rest:>11.2f}{next(iter(figures.values())):>10.3f}")
    print(f"{'all':<14}{total:>28.2f} s of one core")


if __name__ == "__main__":
    main()
