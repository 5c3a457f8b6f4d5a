export { type CatalogConfig, type CatalogSettings, catalogConfig } from './config.ts'
export { startCatalog } from './main.ts'
