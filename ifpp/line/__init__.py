"""Everything above the stations: intake of files, the supervisor that settles results, reports to the SM-DPf."""
