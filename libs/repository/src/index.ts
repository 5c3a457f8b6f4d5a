export {
  backupFromListed,
  backupFromManifest,
  decodeManifestBody,
  encodeManifestBody,
} from './manifest_body.ts'
