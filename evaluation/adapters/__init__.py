"""Systems that evaluation can ask: this project's models, transformers models, services, and files of answers."""
