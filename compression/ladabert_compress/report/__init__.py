"""What people read about artefacts: evaluation, bench, the HTML page; may import ``artefact`` and below."""
