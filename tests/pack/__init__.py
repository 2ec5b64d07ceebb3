"""The pack: rules, dashboards, compose file and units, each against the real thing where there is one."""
