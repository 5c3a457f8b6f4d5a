export * from './guest.ts'
export * from './gate.ts'
export * from './images.ts'
export * from './stand.ts'
