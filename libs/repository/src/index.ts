export { checkMaintenance, checkRate, checkRepeat, checkUndo } from './maintenance_field.ts'
export {
  backupFromListed,
  backupFromManifest,
  decodeManifestBody,
  encodeManifestBody,
} from './manifest_body.ts'
export { checkRetention, checkTags } from './retention_field.ts'
