"""Names that are imported when they are asked for."""

from __future__ import annotations

import pytest

from vargpt_lightning.utils.lazy import lazily


def test_a_name_comes_from_its_module_and_another_is_not_there() -> None:
    look_up = lazily("xml", {"Element": "etree.ElementTree"})
    from xml.etree.ElementTree import Element

    assert look_up("Element") is Element
    with pytest.raises(AttributeError, match="module 'xml' has no attribute 'Elements'"):
        look_up("Elements")
