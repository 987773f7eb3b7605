"""The subcommands of qadvise, each imported when it is called."""
