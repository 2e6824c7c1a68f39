"""The train-generate loop: stages, ledger, health checks, stopping rules, report and lineage."""
