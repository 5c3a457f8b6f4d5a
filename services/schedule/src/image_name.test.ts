import { describe, expect, it } from 'vitest'
import { imageName } from './image_name.ts'

describe('imageName', () => {
  it.each([
    ['disk0', 'disk0.raw'],
    ['a/b', 'a%2Fb.raw'],
    ['..', '%2E..raw'],
    ['-rf', '%2Drf.raw'],
    ['a\nb', 'a%0Ab.raw'],
    ['50%', '50%25.raw'],
    ['ü', '%C3%BC.raw'],
    ['a,b:c d', 'a%2Cb%3Ac%20d.raw'],
    ['', '%.raw'],
    ['vda.raw', 'vda.raw'],
    ['vda.qcow2', 'vda.qcow2.raw'],
    ['.raw', '%2Eraw.raw'],
  ])('%j becomes %s', (disk, name) => expect(imageName(disk, 'raw')).toBe(name))

  it('tells long names apart within the length of a file name', () => {
    const names = ['x', 'y'].map((end) => imageName(`${'ü'.repeat(300)}${end}`, 'qcow2'))
    expect(names[0]).not.toBe(names[1])
    for (const name of names) expect(name.length).toBeLessThan(140)
  })
})
