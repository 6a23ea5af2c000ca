"""The names, colors and markers of methods in figures: fixed, distinct, and free of their places in a report."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sadp_bench.core import registry
from sadp_bench.reports.naming import display_label
from sadp_bench.reports.plots import palette
from sadp_bench.reports.plots.palette import REGISTERED, looks, method_styles

NAMES = st.lists(st.sampled_from([*REGISTERED, *"abcdefgh", "mypkg.mine:HighestLoss"]), unique=True)
# Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009, at full
# strength: linear RGB as such an eye sees it.
BLIND = {
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def lab(color, blind):
    """Returns the CIE L*a*b* coordinates of a color as an eye sees it."""
    shares = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    x, y, z = (
        np.cbrt(part) if part > 0.008856 else 7.787 * part + 16 / 116
        for part in TO_XYZ @ np.clip(np.array(blind) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_registered_method_has_a_display_name_that_is_its_class_attribute_and_a_look_of_its_own():
    names = registry.table("method")
    shown = {name: registry.display_name("method", name) for name in names}
    assert shown == {name: registry.resolve("method", name).display_name for name in names}
    assert "" not in shown.values() and len(set(shown.values())) == len(names)
    assert set(REGISTERED) == set(names) - {"full"}
    assert len(set(REGISTERED.values())) == len(REGISTERED)


def test_a_name_that_is_not_registered_is_its_own_display_name_and_options_stay():
    assert display_label("infobatch (anneal=0.2)", "infobatch") == "InfoBatch (anneal=0.2)"
    assert display_label("mypkg.mine:Own (a=1)", "mypkg.mine:Own") == "mypkg.mine:Own (a=1)"


@given(NAMES, NAMES)
def test_a_registered_method_looks_the_same_in_any_company_and_no_two_methods_look_alike(some, others):
    for names in (some, [*some, *(other for other in others if other not in some)]):
        found = looks(names)
        assert len(set(found.values())) == len(names)
        assert {name: found[name] for name in names if name in REGISTERED} == {
            name: REGISTERED[name] for name in names if name in REGISTERED
        }
        assert looks(names[::-1]) == found


def test_a_look_follows_the_name_and_not_the_place_in_a_report():
    assert len({looks([name])[name] for name in "abcdefgh"}) > 1


def test_more_methods_than_looks_repeat_looks_and_do_not_fail():
    assert len(looks(f"m{number}" for number in range(200))) == 200


def test_variants_of_a_method_share_its_color_and_marker_and_differ_in_fill_or_line():
    labels = [f"sadp (smoothing={number})" for number in range(19)]
    styles = method_styles({"full": "full", **dict.fromkeys(labels, "sadp"), "sadp": "sadp"})
    assert "full" not in styles and {(s["color"], s["marker"]) for s in styles.values()} == {REGISTERED["sadp"]}
    assert len({(style["fillstyle"], style["linestyle"]) for style in styles.values()}) == 20
    assert styles["sadp"]["fillstyle"] == "full" and styles["sadp"]["linestyle"] == "-"


def test_colors_of_methods_that_are_often_compared_stay_apart_for_color_blind_readers():
    often = "sadp random infobatch el2n grand forgetting fewer-epochs hwbs".split()
    colors = [REGISTERED[name][0] for name in often]
    for blind in (np.eye(3).tolist(), *BLIND.values()):
        seen = [lab(color, blind) for color in colors]
        nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
        assert nearest > 10, blind  # 2.3 is a just noticeable difference (Mahy, Van Eycken & Oosterlinck, 1994)
    assert len({REGISTERED[name][1] for name in often}) == len(often)
    assert palette.VERMILION not in palette.COLORS
