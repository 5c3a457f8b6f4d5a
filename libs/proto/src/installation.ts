/** Begins the identity of a VM that is an installation: see blockferry.schedule.v1.Installation. */
export const installationVm = 'blockferry:installation'
