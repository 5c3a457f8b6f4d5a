// Bugs that are planted in a copy of the native sources, one at a time: what the models are worth.
// A bug that no model finds is a failure of the models.
import { execFile } from 'node:child_process'
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { ModelName } from './models.ts'

interface PlantedBug {
  what: string
  /** In native/src. */
  file: string
  right: string
  wrong: string
  /** The model that has to find it. */
  model: ModelName
}

export const plantedBugs: PlantedBug[] = [
  {
    what: 'the manifest is not synced before it is renamed into place',
    file: 'repository/session.cc',
    right: '  RETURN_IF_ERROR((*candidate)->Sync());\n',
    wrong: '',
    model: 'line',
  },
  {
    what: 'the folder of a committed manifest is not synced',
    file: 'repository/session.cc',
    right: '  RETURN_IF_ERROR(renamed);\n  return files.SyncFolder(folder);',
    wrong: '  return renamed;',
    model: 'line',
  },
  {
    what: 'a pack is not synced before it is renamed into place',
    file: 'repository/pack_writer.cc',
    right: 'failure_ = file_->Sync();',
    wrong: 'failure_ = Status();',
    model: 'line',
  },
  {
    what: 'sessions do not see tombstones',
    file: 'repository/repository.cc',
    right: 'listed.push_back({name->id, tombstoned == name->id});',
    wrong: 'listed.push_back({name->id, false});',
    model: 'collection',
  },
  {
    what: 'packs are deleted while sessions that may refer to them are open',
    file: 'repository/collector.cc',
    right: '        batch.is_ripe = false;\n',
    wrong: '',
    model: 'collection',
  },
  {
    what: 'packs are deleted without a second look at what refers to them',
    file: 'repository/collector.cc',
    right: 'if (pack != nullptr && IsNeeded(*pack)) {',
    wrong: 'if (false) {',
    model: 'collection',
  },
  {
    what: 'the bases of patches that nothing refers to yet are not kept',
    file: 'repository/mark.cc',
    right: 'for (const Digest& base : table.bases) RETURN_IF_ERROR(MarkName(base));',
    wrong: 'static_cast<void>(table);',
    model: 'collection',
  },
  {
    what: 'the undo window goes by the wall clock',
    file: 'repository/expiry.cc',
    right: 'ASSIGN_OR_RETURN(time_, repository_.AdvanceTime(false));',
    wrong:
      'ASSIGN_OR_RETURN(time_, repository_.AdvanceTime(false));' +
      ' time_.now = std::max(time_.now, repository_.limits_.clock->Read().wall);',
    model: 'collection',
  },
  {
    what: 'what is read is not compared with its name',
    file: 'repository/repository_read.cc',
    right: 'if (actual == name) {',
    wrong: 'if (actual == name || read.ok()) {',
    model: 'damage',
  },
  {
    what: 'the check of stored bytes passes records over',
    file: 'repository/stored_check.cc',
    right: 'Note(path, "record " + HexOf(entry.name)',
    wrong: 'if (false) Note(path, "record " + HexOf(entry.name)',
    model: 'damage',
  },
  {
    what: 'a session that was fenced makes itself a new folder and commits',
    file: 'repository/session.cc',
    right: '  Result<std::unique_ptr<File>> candidate = files.CreateExclusive(candidate_path);',
    wrong:
      '  static_cast<void>(files.CreateFolder(folder_).ok());\n' +
      '  Result<std::unique_ptr<File>> candidate = files.CreateExclusive(candidate_path);',
    model: 'stop',
  },
  {
    what: 'a write of a pack that failed is forgotten',
    file: 'repository/pack_writer.cc',
    right: '  failure_ = file_->Append(bytes);\n',
    wrong: '  static_cast<void>(file_->Append(bytes).ok());\n',
    model: 'failure',
  },
  {
    what: 'a pack is renamed into place before its table is written',
    file: 'repository/pack_writer.cc',
    right:
      '  RETURN_IF_ERROR(Write(EncodeTable()));\n  failure_ = file_->Sync();\n' +
      '  RETURN_IF_ERROR(failure_);\n' +
      '  failure_ = files_.RenameNoReplace(path_, final_path);\n  RETURN_IF_ERROR(failure_);\n',
    wrong:
      '  failure_ = files_.RenameNoReplace(path_, final_path);\n  RETURN_IF_ERROR(failure_);\n' +
      '  failure_ = file_->Sync();\n  RETURN_IF_ERROR(failure_);\n' +
      '  RETURN_IF_ERROR(Write(EncodeTable()));\n',
    model: 'kill',
  },
  {
    what: 'a block that is zeroes now keeps what it had before',
    file: 'diff/block_plan.cc',
    right: 'return allocated ? BlockRun::Kind::kData : BlockRun::Kind::kHole;',
    wrong: 'return allocated ? BlockRun::Kind::kData : BlockRun::Kind::kKept;',
    model: 'month',
  },
]

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

/** A copy of the native sources that builds its own tests. */
export class BuggyCopy {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async make(folder: string): Promise<BuggyCopy> {
    await mkdir(join(folder, 'native'), { recursive: true })
    for (const part of ['native/src', 'native/fuzz', 'native/CMakeLists.txt', 'bench']) {
      await cp(join(root, part), join(folder, part), { recursive: true })
    }
    const native = join(folder, 'native')
    // Without Node: the addon is not needed.
    await run('cmake', [
      '-S',
      native,
      '-B',
      join(native, 'build'),
      '-G',
      'Ninja',
      '-DNODE=NODE-NOTFOUND',
    ])
    return new BuggyCopy(folder)
  }

  /** The program of the tests with the bug in it; `remove` takes it out again. */
  async plant(bug: PlantedBug): Promise<{ program: string; remove: () => Promise<void> }> {
    const path = join(this.#folder, 'native', 'src', bug.file)
    const right = await readFile(path, 'utf8')
    if (right.split(bug.right).length !== 2) {
      throw new Error(`plant "${bug.what}": ${bug.file} does not have its line exactly once`)
    }
    await writeFile(
      path,
      right.replace(bug.right, () => bug.wrong),
    )
    const native = join(this.#folder, 'native')
    await run('cmake', ['--build', join(native, 'build'), '--target', 'core_test'], {
      maxBuffer: 64 * 1024 * 1024,
    })
    return {
      program: join(native, 'out', 'core_test'),
      remove: () => writeFile(path, right),
    }
  }
}
