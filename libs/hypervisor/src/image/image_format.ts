// What can be known of an image by looking at its first bytes.

export type ImageFormat = 'raw' | 'qcow2' | 'vmdk' | 'vhd' | 'vhdx' | 'vdi'

/** What the header says. `problem` tells why it cannot be read, in words for the user. */
export type ImageProbe =
  | ReadableImage
  | { kind: 'unsupported'; format: string; problem: string }
  | { kind: 'damaged'; format: string; problem: string }

export interface ReadableImage {
  kind: 'readable'
  format: ImageFormat
  sizeBytes: number
  isDevice: boolean
  backing: Backing | null
  /** Other files that hold the layer's data, as the image names them. */
  parts: Part[]
  /** The image is plain bytes with something behind them: a VHD of fixed size. */
  isPlain: boolean
}

/** A file below an overlay, as the overlay names it. */
export interface Backing {
  name: string
  /** The format the overlay names for it, or null. */
  format: string | null
}

export interface Part {
  name: string
  /** What the part must be: plain bytes, at least so many; or an extent of a VMDK of this size. */
  holds: 'plain' | 'vmdk extent'
  sizeBytes: number
}

export const readable = (
  format: ImageFormat,
  sizeBytes: number,
  more: Partial<ReadableImage> = {},
): ReadableImage => ({
  ...{ kind: 'readable', format, sizeBytes, isDevice: false },
  ...{ backing: null, parts: [], isPlain: false, ...more },
})
