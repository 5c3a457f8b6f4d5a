// Disk formats by the names that users know. QEMU calls VHD "vpc"; nobody else does.
import { ImageFormat } from './gen/blockferry/move/v1/move_service.ts'

export type ImageFormatName = 'raw' | 'qcow2' | 'vmdk' | 'vhd' | 'vhdx' | 'vdi'

const formats: Record<ImageFormatName, ImageFormat> = {
  raw: ImageFormat.RAW,
  qcow2: ImageFormat.QCOW2,
  vmdk: ImageFormat.VMDK,
  vhd: ImageFormat.VHD,
  vhdx: ImageFormat.VHDX,
  vdi: ImageFormat.VDI,
}

export const imageFormatNames = Object.keys(formats) as ImageFormatName[]

/** Null for a format that is not known. */
export const imageFormatOf = (name: string): ImageFormat | null =>
  imageFormatNames.find((known) => known === name) ? formats[name as ImageFormatName] : null

/** Unset is qcow2. Null for a value that is not known. */
export function imageFormatName(format: ImageFormat): ImageFormatName | null {
  if (format === ImageFormat.UNSPECIFIED) return 'qcow2'
  return imageFormatNames.find((name) => formats[name] === format) ?? null
}
