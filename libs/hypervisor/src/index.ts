export * from './driver.ts'
export * from './qmp.ts'
