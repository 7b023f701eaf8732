"""The operator: reconciles GismoPools. docs/kubernetes.md says what it does and why."""
