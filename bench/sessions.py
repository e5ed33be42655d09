"""200 jobs at once on one host whose sshd allows one session a login."""

from __future__ import annotations

from . import stats
from .fleetbuild import fleet_build
from .stage import Stage
from .stats import Row, Sample, at_least, at_most

_LOGIN = "Accepted publickey"
_REFUSALS = (
    "no more sessions",
    "exceeded MaxStartups",
    "drop connection",
    "Too many authentication failures",
)


def measure(stage: Stage) -> list[Row]:
    """The jobs wait until all of them have said that they run."""
    count = stage.few(200, 12)
    folder = stage.folder("@echo job >{said}; read x <{go}")
    folder.write([("run", count)])
    with stage.servers(["h"], MaxSessions=1) as sshd:
        with fleet_build(stage, folder, [f"-j{count}"], ["h"], sshd, slots=count) as running:
            build = running.build
            build.hear("run")
            running.wait_for_hosts(1)
            began = build.let_go()
            for _ in range(count):
                heard = build.hear("job")
            build.let_go(count)
            build.hear("done")
            build.finish()
        logins, refused = sshd.count(_LOGIN), sum(sshd.count(text) for text in _REFUSALS)
    return [
        stats.row("jobs that ran at once", Sample((count,), "jobs"), at_least(count, "jobs")),
        stats.row("time until all of them ran", Sample((heard - began,), "s")),
        stats.row("logins", Sample((logins,), ""), at_most(1, "")),
        stats.row("sessions or connections refused", Sample((refused,), ""), at_most(0, "")),
    ]
