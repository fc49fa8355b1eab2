"""Version 1 of the generator's gRPC interface; the build compiles generator.proto into the modules here."""
