export * from './driver.ts'
export * from './qmp.ts'
export { FolderDriver, type FolderDriverOptions } from './folder/folder_driver.ts'
export * from './storage_daemon.ts'
