// The tables of VMDK, VHD, VHDX and VDI images, read in bounded pieces: where in the file the blocks
// of the disk are. QEMU has no check, or a weaker one, for these formats.
import { FileClaims, type FileRange } from './file_claims.ts'
import { ImageFile } from './image_file.ts'
import type { ImageLayer } from './image_layers.ts'
import { readVdiTable } from './vdi_table.ts'
import { readVhdTable } from './vhd_table.ts'
import { readVhdxTable } from './vhdx_table.ts'
import { readVmdkTable } from './vmdk_table.ts'

/** One allocated block: its place on the disk, and what it takes in the file. */
export type VisitBlock = (block: {
  diskOffset: number
  diskBytes: number
  fileOffset: number
  fileBytes: number
}) => void

export interface TableShape {
  /** What a block of full size takes in the file. */
  blockBytes: number
  /** Header, tables and descriptor: no block lies there. */
  reserved: FileRange[]
}

/** Tells the shape, then every allocated block. Errors: TableDamaged. */
export type ReadTable = (
  file: ImageFile,
  sizeBytes: number,
  begin: (shape: TableShape) => VisitBlock,
  signal: AbortSignal,
) => Promise<void>

/** What is wrong with a table, in words for the user. */
export class TableDamaged extends Error {}

const readers: Partial<Record<ImageLayer['format'], ReadTable>> = {
  vdi: readVdiTable,
  vhd: readVhdTable,
  vhdx: readVhdxTable,
  vmdk: readVmdkTable,
}

/** Bytes of the disk that are allocated, ascending, by the tables of the layer's only file. */
export type SeeData = (offset: number, sizeBytes: number) => void

/** Reads the tables of a layer, all its files. Errors: TableDamaged, those of the file system. */
export async function checkTables(
  layer: ImageLayer,
  signal: AbortSignal,
  seeData: SeeData = () => {},
): Promise<void> {
  const read = readers[layer.format]
  if (!read || layer.isPlain) return
  if (layer.format !== 'vmdk' || layer.parts.length === 0) {
    await checkFile(read, layer.path, layer.sizeBytes, signal, seeData)
    return
  }
  // Which extents have tables is for the descriptor to say: in a flat one the guest writes what it
  // likes.
  for (const path of layer.sparseParts) await checkFile(read, path, null, signal, () => {})
}

async function checkFile(
  read: ReadTable,
  path: string,
  sizeBytes: number | null,
  signal: AbortSignal,
  seeData: SeeData,
): Promise<void> {
  await using file = await ImageFile.open(path)
  const begin = ({ blockBytes, reserved }: TableShape): VisitBlock => {
    const claims = new FileClaims(file.sizeBytes, blockBytes, reserved)
    return ({ diskOffset, diskBytes, fileOffset, fileBytes }) => {
      const problem = claims.claim(fileOffset, fileBytes)
      if (problem !== null) throw new TableDamaged(`${path}: ${problem}`)
      seeData(diskOffset, diskBytes)
    }
  }
  await read(file, sizeBytes ?? Number.MAX_SAFE_INTEGER, begin, signal)
}

const pieceBytes = 1024 * 1024

/** A long table in pieces; ends early where the file does. */
export async function* tablePieces(
  file: ImageFile,
  offset: number,
  sizeBytes: number,
  signal: AbortSignal,
): AsyncGenerator<{ at: number; piece: Buffer }> {
  for (let at = 0; at < sizeBytes; at += pieceBytes) {
    signal.throwIfAborted()
    const wanted = Math.min(pieceBytes, sizeBytes - at)
    const piece = await file.read(offset + at, wanted)
    if (piece.length < wanted) throw new TableDamaged(`${file.path}: its tables are cut off`)
    yield { at, piece }
  }
}
