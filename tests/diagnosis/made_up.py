"""What findings say."""


def bad(findings):
    """(level, found) of the warnings and faults."""
    return [(finding.level, finding.found) for finding in findings if finding.level in ("warning", "fault")]


def one(findings, level):
    """The only warning or fault, which has this level; anything else fails."""
    (finding,) = [finding for finding in findings if finding.level in ("warning", "fault")]
    assert finding.level == level, finding
    return finding
