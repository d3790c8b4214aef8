"""Backups: where they go, how long they are kept, and when one is missing."""

from typing import Annotated

from gatehouse.settings.field import Component, setting

LOCAL = "/var/lib/gatehouse/backup/repository"


class BackupSettings(Component):
    """restic's repository, and what is kept in it; timers_backup and timers_drill say when."""

    backup_enabled: Annotated[
        bool,
        setting(
            "Install restic and make backups. Off: no timer and no checks; what is there stays, "
            "and restic need not be had (an air-gapped host without packages)."
        ),
    ]
    backup_repository: Annotated[
        str,
        setting(
            "restic's repository: an absolute path, or another of its targets (sftp:, s3:, rest:, "
            "b2:, azure:, gs:, swift:, rclone:) without credentials in it: `sudo gatehouse backup "
            "credentials` takes those.",
            example="sftp:backup@nas.example.com:/srv/gatehouse",
            pattern=r"^(/|sftp:|s3:|rest:|b2:|azure:|gs:|swift:|rclone:)[^\s\"'\\$`%]+$",
        ),
    ]
    backup_keep_daily: Annotated[
        int, setting("Days of which the last snapshot is kept.", unit="snapshots", ge=1, le=1000)
    ]
    backup_keep_weekly: Annotated[
        int, setting("Weeks of which the last snapshot is kept.", unit="snapshots", ge=0, le=1000)
    ]
    backup_keep_monthly: Annotated[
        int, setting("Months of which the last snapshot is kept.", unit="snapshots", ge=0, le=1000)
    ]
    backup_age_hours: Annotated[
        int,
        setting(
            "Age of the last good backup above which the checks fail; timers_backup and its spread "
            "have to fit in.",
            unit="hours",
            ge=1,
            le=8760,
        ),
    ]
    backup_drill_age_days: Annotated[
        int,
        setting(
            "Age of the last good drill above which the checks fail; timers_drill has to fit in.",
            unit="days",
            ge=1,
            le=365,
        ),
    ]
    backup_reserve_mib: Annotated[
        int,
        setting(
            "Room on the disk that a backup, a restore and a drill leave to everybody else; they "
            "do not begin where it would not be left.",
            unit="MiB",
            ge=0,
            le=16777216,
        ),
    ]

    @property
    def backup_local(self) -> bool:
        """Whether the repository is a folder of the host."""
        return self.backup_repository.startswith("/")
