"""What puts Partbook on a machine: one role's wheel, an air-gap bundle, images, units, a chart; see docs/deploy.md."""
