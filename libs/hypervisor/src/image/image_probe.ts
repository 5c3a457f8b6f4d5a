// What an image file is, by its first bytes, without any program of QEMU: an
// inventory of thousands of images must not start thousands of processes. The
// header fields are only looked at here; QEMU itself judges the whole image later.
import { ImageFile, NotAnImage } from './image_file.ts'
import { type ImageProbe, readable } from './image_format.ts'
import { isQcow2, probeQcow2 } from './qcow2_header.ts'
import { isVdi, probeVdi } from './vdi_header.ts'
import { footerBytes, isVhd, probeVhd } from './vhd_footer.ts'
import { isVhdx, probeVhdx } from './vhdx_header.ts'
import { isVmdk, probeVmdk } from './vmdk_header.ts'

/** Long enough for a qcow2 header with its extensions and the names of other files. */
const headBytes = 64 * 1024

const otherMagics: { format: string; magic: Buffer }[] = [
  { format: 'qed', magic: Buffer.from('QED\0') },
  { format: 'luks', magic: Buffer.from('LUKS\xba\xbe', 'latin1') },
  { format: 'vmfsSparse', magic: Buffer.from('COWD') },
  { format: 'seSparse', magic: Buffer.from('bebafeca00000000', 'hex') },
  { format: 'parallels', magic: Buffer.from('WithoutFreeSpace') },
  { format: 'parallels', magic: Buffer.from('WithouFreSpacExt') },
]

/** Errors: those of the file system, as they are. */
export async function probeImage(path: string): Promise<ImageProbe> {
  try {
    await using file = await ImageFile.open(path)
    return await probe(file)
  } catch (thrown) {
    if (!(thrown instanceof NotAnImage)) throw thrown
    return { kind: 'unsupported', format: 'unknown', problem: thrown.message }
  }
}

/** The same for an image that is said to be raw, whatever it begins with. */
export async function probePlain(path: string): Promise<ImageProbe> {
  try {
    await using file = await ImageFile.open(path)
    return readable('raw', file.sizeBytes, { isDevice: file.isDevice })
  } catch (thrown) {
    if (!(thrown instanceof NotAnImage)) throw thrown
    return { kind: 'unsupported', format: 'unknown', problem: thrown.message }
  }
}

async function probe(file: ImageFile): Promise<ImageProbe> {
  // The guest writes what a device holds from its first byte on: nothing there is ours to obey.
  if (file.isDevice) return readable('raw', file.sizeBytes, { isDevice: true })
  const head = await file.read(0, headBytes)
  if (isQcow2(head)) return probeQcow2(head, file.sizeBytes)
  if (isVmdk(head)) return await probeVmdk(head, file)
  if (isVhdx(head)) return await probeVhdx(file)
  if (isVdi(head)) return probeVdi(head, file.sizeBytes)
  const other = otherMagics.find(({ magic }) => head.subarray(0, magic.length).equals(magic))
  if (other) {
    return { kind: 'unsupported', format: other.format, problem: `format ${other.format}` }
  }
  // A VHD of fixed size is raw with a footer; read as raw it would be 512 bytes too long.
  const footer = await file.read(Math.max(0, file.sizeBytes - footerBytes), footerBytes)
  if (isVhd(head) || isVhd(footer)) return await probeVhd(head, footer, file)
  return readable('raw', file.sizeBytes)
}
