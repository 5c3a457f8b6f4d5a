export {
  type SnapshotConfig,
  type SnapshotLimits,
  type SnapshotSettings,
  snapshotConfig,
} from './config.ts'
export { startSnapshot } from './main.ts'
