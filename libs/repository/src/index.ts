export { backupFromManifest, decodeManifestBody, encodeManifestBody } from './manifest_body.ts'
