"""JSON that every reader accepts: finite numbers, and text that can be encoded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from percoin.printable import printable


def strict(content: Any) -> Any:
    """The same JSON value with null for what is no number, and with printable text."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, str):
        return content if content.isascii() and content.isprintable() else printable(content)
    if isinstance(content, Mapping):
        return {strict(str(key)): strict(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [strict(value) for value in content]
    return content


def dumps(content: Any) -> str:
    """A JSON value as text of ASCII, made ``strict``."""
    return json.dumps(strict(content), allow_nan=False)


def json_response(content: Any, status: int = 200) -> Response:
    """The same as a response."""
    return Response(dumps(content), status, media_type="application/json")
