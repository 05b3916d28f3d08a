"""JSON that every parser accepts: finite numbers and printable text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from percoin.printable import printable


def strict(content: Any) -> Any:
    """Copy a JSON value: NaN and infinity become null, text becomes printable."""
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
    """Write a JSON value as ASCII text, after ``strict``."""
    return json.dumps(strict(content), allow_nan=False)


def json_response(content: Any, status: int = 200) -> Response:
    """Make a response from a JSON value, after ``strict``."""
    return Response(dumps(content), status, media_type="application/json")
