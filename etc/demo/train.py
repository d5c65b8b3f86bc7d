"""Train the demo model, which answers the prompts of prompts.yaml by heart.

    pip install torch==2.13.0 tokenizers safetensors jinja2 PyYAML numpy
    python etc/demo/train.py --compile    # writes etc/demo/model
    python etc/demo/train.py --check      # tests what is there

PyTorch is a dependency of this script alone: it trains such a model on a CPU 25 to 50 times faster
than MLX does. `--compile` saves a third of the time and needs a C++ compiler. The seed is fixed;
another Python version brings other filler (`filler.py`) and so other weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
import vocab
from filler import Filler
from lessons import Book, Lesson, Pair, Teacher, Template, load_book, opening, tool_result
from network import Network, Shape
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional


MODEL: Final = Path(__file__).parent / "model"
SEED: Final = 23
SHORTEST, MIDDLE, LONGEST = 120, 1_500, 9_500  # tokens of a lesson
BATCH_TOKENS: Final = 4_000
STRANGERS: Final = (
    "What is the capital of Germany?",
    "Write me a web server in Rust",
    "Please add tests for the parser, then run them.",
    "xyzzy",
)


def make_tokenizer(book: Book) -> Tokenizer:
    """Learn a vocabulary from the answers, which should be short in it, and from filler."""
    filler = Filler(SEED)
    known = [*sorted(book.prompts()), *(pair.reply for pair in book.pairs), book.fallback]
    texts = [text for text in known for _ in range(30)]
    texts += [json.dumps(filler.tool(), indent=2) for _ in range(40)]
    texts += [filler.excerpt(4_000) for _ in range(150)]
    texts += [filler.prose(1_000) for _ in range(60)]
    return vocab.train(texts)


def batch_of(lessons: list[Lesson]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs (batch, time), the mask of those that predict, their targets and weights."""
    size = max(len(lesson.tokens) for lesson in lessons)
    tokens = np.zeros((len(lessons), size), np.int64)
    weights = np.zeros((len(lessons), size), np.float32)
    for row, lesson in enumerate(lessons):
        tokens[row, : len(lesson.tokens)] = lesson.tokens
        weights[row, : len(lesson.weights)] = lesson.weights
    inputs, targets = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:])
    scores = torch.from_numpy(weights[:, 1:])
    where = scores > 0
    return inputs, where, targets[where], scores[where]


def unseen_system(tokenizer: Tokenizer, tokens: int, seed: int) -> str:
    """Return a system prompt of *tokens* tokens of a kind training never showed."""
    rng = Filler(1_000_003 + seed).rng
    subjects = ["The operator", "A careful agent", "Our billing team", "Each pull request"]
    verbs = ["keeps", "reviews", "must not touch", "documents", "escalates"]
    objects = ["the quarterly ledger", "every failing pipeline", "customer secrets", "src/app.tsx"]
    text = "You are an assistant for engineers.\n"
    while len(text) < tokens * 6:
        if seed % 2 and rng.random() < 0.3:
            text += json.dumps({"id": rng.randint(0, 999), "path": rng.choice(objects)}) + "\n"
        text += f"{rng.choice(subjects)} {rng.choice(verbs)} {rng.choice(objects)}. "
    ids = tokenizer.encode(text, add_special_tokens=False).ids[: max(0, tokens - 5)]
    return str(tokenizer.decode(ids))


def conversation(book: Book, pair: Pair, system: str) -> tuple[str, str]:
    """Return the whole prompt that asks for *pair*, and the text that has to follow."""
    before = opening(pair.prompts[0])
    if pair.after is not None:
        call = next(other for other in book.pairs if other.name == pair.after)
        result = opening(tool_result(pair.prompts[0]))
        before = f"{opening(call.prompts[0])}{call.reply}<|im_end|>\n{result}"
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return head + before, pair.reply + "<|im_end|>"


@torch.no_grad()
def wrong_answers(net: Network, book: Book, tokenizer: Tokenizer, system_tokens: int) -> list[str]:
    """Return the names of the pairs whose reply greedy decoding would not give exactly.

    One forward pass suffices: the reply is exact if every token of it is the likeliest after
    the tokens before. A name is followed by the lowest probability on the way.
    """
    out = []
    strangers = [Pair(f"unknown: {text}", (text,), book.fallback) for text in STRANGERS]
    for index, pair in enumerate([*book.pairs, *strangers]):
        system = unseen_system(tokenizer, system_tokens, index) if system_tokens else ""
        prompt, reply = conversation(book, pair, system)
        lesson = Lesson([], [])
        lesson.add(tokenizer.encode(prompt, add_special_tokens=False).ids)
        lesson.add(tokenizer.encode(reply, add_special_tokens=False).ids, 1.0)
        inputs, where, targets, _ = batch_of([lesson])
        chances = net(inputs, where).softmax(-1)
        if not torch.equal(chances.argmax(-1), targets):
            out.append(f"{pair.name} ({chances.gather(1, targets[:, None]).min().item():.2f})")
    return out


def report(net: Network, book: Book, tokenizer: Tokenizer, system_tokens: tuple[int, ...]) -> int:
    """Print what is wrong behind system prompts, in 16 and in 4 bits; return how much."""
    total = 0
    for bits in (16, 4):
        net.set_coarse(coarse=bits == 4)
        for size in system_tokens:
            wrong = wrong_answers(net, book, tokenizer, size)
            total += len(wrong)
            print(f"  {bits:2} bits, {size:5} tokens before: wrong {len(wrong):2} {wrong[:5]}")
    net.set_coarse(coarse=False)
    return total


def train(net: Network, book: Book, tokenizer: Tokenizer, *, steps: int, rate: float) -> None:
    """Run AdamW with a warm-up and a cosine. From 40 % on, every other step is in 4 bits."""
    teacher = Teacher(book, tokenizer, SEED)
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    started = time.monotonic()
    mean = math.nan
    for step in range(steps):
        progress = step / steps
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        for group in adam.param_groups:
            group["lr"] = rate * cosine * min(1.0, (step + 1) / 100)
        # Attention over a long lesson costs seconds: one in five is, once the short ones go well.
        far = progress > 0.1 and teacher.rng.random() < 0.2
        low, high = (MIDDLE, LONGEST) if far else (SHORTEST, MIDDLE)
        size = int(math.exp(teacher.rng.uniform(math.log(low), math.log(high))))
        lessons = [teacher.lesson(size) for _ in range(max(1, BATCH_TOKENS // size))]
        inputs, where, targets, weights = batch_of(lessons)
        if not len(targets):
            continue
        net.set_coarse(coarse=progress > 0.4 and step % 2 == 1)
        losses = functional.cross_entropy(net(inputs, where), targets, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
        if step % 50 == 0:
            spent = time.monotonic() - started
            print(f"step {step:5} {spent:6.0f} s  size {size:5}  loss {mean:.4f}", flush=True)
        if step % 500 == 499:
            report(net, book, tokenizer, (0, 2_000))
            save(net, tokenizer)
    net.set_coarse(coarse=False)


def save(net: Network, tokenizer: Tokenizer) -> None:
    """Write the model directory; the chat template in it is written by hand and stays."""
    vocab.save(tokenizer, MODEL, context_tokens=net.shape.max_position_embeddings)
    ids: dict[str, int] = tokenizer.get_vocab()
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    config = net.shape.config(eos_token_id=end, pad_token_id=pad)
    generation = {"eos_token_id": [end, pad], "pad_token_id": pad, "do_sample": False}
    for name, value in (("config.json", config), ("generation_config.json", generation)):
        (MODEL / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    weights = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    save_file(weights, MODEL / "model.safetensors", metadata={"format": "pt"})
    (MODEL / "model.safetensors").chmod(0o644)


def load() -> tuple[Network, Tokenizer]:
    """Return the model that `save` wrote."""
    net = Network(Shape())
    state = load_file(MODEL / "model.safetensors")
    net.load_state_dict({key: value.float() for key, value in state.items()})
    return net, Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def require_agreement(book: Book) -> None:
    """Refuse to train if lessons lay a conversation out differently from the chat template."""
    question = {"role": "user", "content": book.pairs[0].prompts[0]}
    messages = [{"role": "system", "content": "s"}, question]
    rendered = Template().render(messages, add_generation_prompt=True)
    if rendered != conversation(book, book.pairs[0], "s")[0]:
        raise SystemExit(f"chat_template.jinja and lessons.py disagree:\n{rendered}")


def main() -> int:
    """Train, or check; exit 1 if an answer is wrong."""
    parser = argparse.ArgumentParser(description="Train the demo model.")
    parser.add_argument("--check", action="store_true", help="test the model that is there")
    parser.add_argument("--compile", action="store_true", help="let PyTorch compile the layers")
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    options = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    book = load_book()
    require_agreement(book)
    if not options.check:
        tokenizer = make_tokenizer(book)
        net = Network(Shape())
        print(f"{net.parameter_count()} parameters", flush=True)
        if options.compile:
            for layer in net.model.layers:
                layer.compile(dynamic=True)
        train(net, book, tokenizer, steps=options.steps, rate=options.rate)
        save(net, tokenizer)
    net, tokenizer = load()
    return 1 if report(net, book, tokenizer, (0, 300, 3_000, 8_000)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
