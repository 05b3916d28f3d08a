"""Words of a command line, quoted so that Hydra's grammar reads them as they are meant.

In that grammar ``=``, ``(``, a comma or a blank have a meaning of their own, and letters of other
alphabets are errors. If a setting can only be a text, all of them are part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache

from omegaconf import OmegaConf

from percoin.commands import folder_words
from percoin.config import CONF_DIR, OPTIONS, BinanceConfig, SourceConfig
from percoin.config.structure import leaves_of
from percoin.types import market_spelling

# What the grammar reads as a text without quotes, and not as a number. A colon would be escaped
# where Hydra writes the word again.
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.@%+-]*")
_WORDS_OF_THE_GRAMMAR = frozenset({"true", "false", "null", "inf", "nan"})
_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
# Within text that the grammar of the command line reads again.
# Begins at the first of some backslashes only, or a run of them would be read once from each.
_INTERPOLATION = re.compile(r"(?<!\\)(\\*)\$\{")
_MISSING = "???"
# What is in quotes or nested is left to the grammar.
_TEXTS = re.compile(r"""\[[^\["'{$]*\]""", re.DOTALL)
_FUNCTION = re.compile(r"\w+\s*\(.*\)", re.DOTALL)
_OVERRIDE = re.compile(r"(?P<start>\+{0,2}(?P<key>[\w.]+)=)(?P<value>.*)", re.DOTALL)

# Of Hydra's own, a text too.
_OF_HYDRA = frozenset({"hydra.run.dir"})
# Sentences for people, in which not even ${...} means anything.
_SENTENCES = frozenset({"why"})


def quoted(text: str) -> str:
    """``text`` in quotes of the grammar, which give exactly ``text`` again."""
    # A backslash is itself, unless it stands before a quote.
    inner = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + match[2].replace("'", r"\'"), text)
    return f"'{inner}'"


def as_overrides(settings: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Settings as ``KEY=VALUE``."""
    for name, value in settings.items():
        yield f"{prefix}{name}={literal(value)}"


def literal(value: object) -> str:
    """A value in the grammar of the command line, where it means itself and nothing else.

    Raises:
        TypeError: It is nothing that a setting can be.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and value != _MISSING:
        # Backslashes before an interpolation count.
        return quoted(_INTERPOLATION.sub(lambda match: rf"{match[1] * 2}\${{", value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, Mapping) and all(_KEY.fullmatch(str(key)) for key in value):
        return f"{{{','.join(f'{key}:{literal(entry)}' for key, entry in value.items())}}}"
    raise TypeError(f"{value!r} is no value of a setting")


def quote_texts(
    words: Sequence[str], schema: type, lists: Collection[str] = frozenset()
) -> list[str]:
    """The same words, with quotes around the texts that need them.

    Left as they are: what is in quotes of the grammar already, ``null``, and whatever is no
    text by the schema.

    Args:
        words: ``KEY=VALUE`` each.
        schema: The dataclass of the whole config.
        lists: Keys whose commas separate several values, as a sweep has them.
    """
    texts, several = text_keys(schema), text_list_keys(schema)
    return [_with_quotes(_listed_texts(word, several), texts, lists) for word in words]


def _listed_texts(word: str, keys: Collection[str]) -> str:
    """A word of a list of texts, with quotes around those of its texts that need them."""
    match = _OVERRIDE.fullmatch(word)
    if match is None or match["key"] not in keys or not _TEXTS.fullmatch(match["value"]):
        return word
    texts = [text.strip() for text in match["value"][1:-1].split(",")]
    quotes = ",".join(_as_text(text, match["key"]) for text in texts if text or len(texts) > 1)
    return f"{match['start']}[{quotes}]"


def _with_quotes(word: str, texts: Collection[str], lists: Collection[str]) -> str:
    match = _OVERRIDE.fullmatch(word)
    if match is None or match["key"] not in texts:
        return word
    key, value = match["key"], match["value"]
    if key in lists and ("," in value or _FUNCTION.fullmatch(value)):
        if re.search(r"""["'(\[{]""", value):
            return word  # as Hydra reads it
        return match["start"] + ",".join(_as_text(one.strip(), key) for one in value.split(","))
    return match["start"] + _as_text(value, key)


def _as_text(value: str, key: str) -> str:
    if value.lower() == "null" or _QUOTED.fullmatch(value):
        return value
    if key in _SENTENCES:
        return quoted(value.replace("${", r"\${"))
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS_OF_THE_GRAMMAR:
        return value
    return quoted(value)


def split_lists(arguments: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Split the arguments into the values of ``symbol`` and ``tf`` and all others.

    ``symbol=$(cat symbols)`` may hold commas, spaces, newlines and a comma at the
    end; without quotes the shell makes several arguments of it.
    """
    lists: dict[str, list[str]] = {name: [] for name in ("symbol", "tf")}
    others: list[str] = []
    current: list[str] | None = None
    for argument in arguments:
        name, has_value, value = argument.partition("=")
        if has_value or argument.startswith("-"):
            current = lists.get(name)
        elif current is not None:
            value = argument
        if current is None:
            others.append(argument)
        else:
            words = re.split(r"[,\s]+", value.strip("[] "))
            current += [word for word in words if word]
    lists["symbol"] = list(map(market_spelling, lists["symbol"]))
    return {name: list(dict.fromkeys(words)) for name, words in lists.items()}, others


def source_words(source: SourceConfig) -> list[str]:
    """``KEY=VALUE`` words that choose this source, for a person to repeat them.

    What trainings and predictions have by themselves is left out.
    """
    file = CONF_DIR / "source" / f"{source.option}.yaml"
    usual = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    words = [] if source.option == BinanceConfig.option else [f"source={source.option}"]
    for entry in fields(source):
        value = getattr(source, entry.name)
        if not isinstance(usual, dict) or value != usual.get(entry.name):
            words.append(f"source.{entry.name}={'null' if value is None else value}")
    return words


def bars_from(source: SourceConfig, data_dir: str) -> list[str]:
    """``KEY=VALUE`` words that choose these bars, for the command that trains a missing model."""
    return [*source_words(source), *folder_words(data_dir=data_dir)]


@cache
def text_keys(schema: type) -> frozenset[str]:
    """The names of all settings that are texts, of every option that a group may have."""
    found = {leaf.name for leaf in leaves_of(schema) if leaf.kinds == {str}} | _OF_HYDRA
    for launcher in OPTIONS["hydra/launcher"]:
        texts = (leaf.name for leaf in leaves_of(launcher) if leaf.kinds == {str})
        found.update(f"hydra.launcher.{name}" for name in texts)
    return frozenset(found)


@cache
def text_list_keys(schema: type) -> frozenset[str]:
    """The names of all settings that are lists of texts, of every option of a group."""
    return frozenset(leaf.name for leaf in leaves_of(schema) if leaf.kinds == {list[str]})
