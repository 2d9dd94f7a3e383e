"""brokerd-proxy: forwards requests of local programs to an API and adds the token that they never see."""
