"""The page says what was measured, and what did not hold."""

from lossmith.reproduce.page import markdown


def record(**changes: object) -> dict[str, object]:
    claim = {"what": "a | b", "low": 1.0, "high": 2.0, "measured": 0.5, "interval": [0.4, 0.6]}
    result = {
        **dict.fromkeys(("finding", "source", "published", "setting", "metric"), "text"),
        "name": "made-up",
        "losses": ["mse_loss"],
        "seeds": 2,
        "held": False,
        "seconds": 3.2,
        "processor_seconds": 1.4,
        "claims": [{**claim, "held": False}],
        "beside": {"other": None},
        "remark": "because",
        **changes,
    }
    facts = {
        "date": "2026-01-01",
        "hardware": "a machine",
        "threads": 1,
        "versions": {"torch": "2"},
    }
    return {**facts, "results": [result]}


def test_page_of_reproductions_says_what_was_not_held() -> None:
    page = markdown(record())
    assert "0 of 1 held on 2026-01-01: a machine" in page
    assert "| a \\| b: 0.5 (0.4 to 0.6) | **not held** | 3 (1) |" in page
    assert "| a \\| b | 1 to 2 | 0.5 (0.4 to 0.6) | **not held** |" in page
    assert "| other | not finite |" in page
    assert "\nbecause\n" in page
    held = markdown(record(held=True, claims=[], remark=""))
    assert "1 of 1 held" in held
    assert "**not held**" not in held
