"""The help that fits a screen; ``--help TOPIC`` and the help of a rule show every flag of a part."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence

from cli.build import SPELLINGS, Parser, add_setting, shown_setting, train_parser
from consts import NAME, PROGRAM, VERBS
from schemas import SECTIONS, Rules
from utils import UsageError, code_file, did_you_mean

ALL = "all"
WORDS = ("-h", "--help")
EXAMPLES = {
    "--dgl --dataset digits --epochs 3": "a minute, on images that come with the code",
    "--device cuda:0 --dgl": "every block learns from its own classifier",
    "--device cuda:0": "the same network with back-propagation",
    "report experiments/*": "compare runs: table, figures, page",
    "evaluate experiments/RUN": "test its weights again, block by block",
    "sweep configs/sweeps/basiccnn_bp.yaml": "many runs, one study",
}
# The flags that most commands need, by the title that they stand under.
ESSENTIAL = {
    "What is trained": ("method", "model", "dataset", "data_dir"),
    "How": ("epochs", "batch_size", "learning_rate", "seed"),
    "Where": ("device", "path", "wandb", "resume"),
}


def short_help(rules: Rules) -> str:
    """What the program is, six examples, the flags that matter most, and how to see the others."""
    names = ", ".join(sorted(name for name in rules if not code_file(name)))
    width = max(map(len, EXAMPLES))
    examples = "\n".join(f"  python {PROGRAM} {words:{width}}  {what}" for words, what in EXAMPLES.items())
    parser = Parser(
        prog=PROGRAM,
        usage=f"python {PROGRAM} [flags]   or   python {PROGRAM} {'|'.join(VERBS)} ... (each has --help)",
        add_help=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=26),
        description=f"{NAME} trains a convolutional network without end-to-end back-propagation, or with it.\n\n"
        + examples,
        epilog=textwrap.fill(f"Rules: {names}.", width=100, subsequent_indent="  ") + "\n"
        f"All flags: --help {ALL}; of a part: --help {'|'.join(SECTIONS)}; of a rule: --dgl --help.\n"
        f"{SPELLINGS}",
    )
    for title, shown in ESSENTIAL.items():
        group = parser.add_argument_group(title)
        for name in shown:
            add_setting(group, name, shown_setting(name, rules, None))
    group.add_argument("--config", metavar="FILE.yaml", help="take settings from a file")
    return parser.format_help()


def split_topic(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words of a command without ``--help``, and the topic that stands after it."""
    asked = next(index for index, word in enumerate(words) if word in WORDS)
    after = list(words[asked + 1 :])
    topic = after.pop(0) if after and not after[0].startswith("-") else None
    return [word for word in (*words[:asked], *after) if word not in WORDS], topic


def help_text(topic: str | None, rules: Rules, method: str | None) -> str:
    """The help about a topic.

    Args:
        topic: ``all``, a section or a rule; with None it is the short help, or that of ``method``.
        rules: the training rules that there are.
        method: the rule that the command names; None where it names none.

    Raises:
        UsageError: there is no such topic.
    """
    if topic is None:
        return short_help(rules) if method is None else train_parser(rules, method).format_help()
    if topic in rules:
        return train_parser(rules, topic).format_help()
    if topic not in (ALL, *SECTIONS):
        known = [ALL, *SECTIONS, *rules]
        raise UsageError(
            f"--help {topic}: allowed is {ALL}, one of {', '.join(SECTIONS)}, or a rule{did_you_mean(topic, known)}"
        )
    return train_parser(rules, method, part=None if topic == ALL else topic).format_help()
