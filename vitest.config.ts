import { defineConfig } from 'vitest/config'

const conditions = ['@blockferry/source']

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: [
      '{libs,services,apps,tools}/*/src/**/*.test.ts',
      'native/lib/**/*.test.ts',
      'tests/src/**/*.test.ts',
    ],
    pool: 'forks',
    testTimeout: 30_000,
  },
})
