"""kubectl-finetune: watch, run and inspect FineTuneJobs from a terminal."""
