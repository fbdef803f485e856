"""What every benchmark shares: servers, clients, statistics, results and pages."""
