// Joins a policy with what catalog decides: which retention goes for which of its VMs. A page is of
// one VM, so it may be short, and its token is the place of the VM and catalog's own token.
import { argumentInvalid } from '@blockferry/errors'
import type { retention, schedule } from '@blockferry/proto'
import type { RetainedPolicy } from './retain.ts'
import type { Services } from './services.ts'

export async function planPage(
  policy: RetainedPolicy,
  { vm, pageSize, pageToken }: schedule.PlanRetentionRequest,
  catalog: Services['catalog'],
  signal: AbortSignal,
): Promise<schedule.PlanRetentionResponse> {
  const vms = vm === '' ? policy.vms : [vmOf(policy, vm)]
  const place = placeOf(pageToken)
  const planned = vms[place.index]
  // The policy lost VMs between two pages.
  if (planned === undefined) return { decisions: [], nextPageToken: '' }
  const request = {
    parent: policy.repository,
    vm: planned,
    policy: policy.name,
    retention: retentionOf(policy, planned),
    planTime: undefined,
    pageSize,
    pageToken: place.token,
  }
  const { decisions, nextPageToken } = await catalog.planRetention(request, { signal })
  return {
    decisions: decisions.filter(({ vmIdentity }) => isDecidedBy(policy, planned, vmIdentity)),
    nextPageToken: tokenOf(place.index, nextPageToken, vms.length),
  }
}

/** Undefined: everything is kept. */
function retentionOf(policy: RetainedPolicy, vm: string): retention.Retention | undefined {
  const own = policy.vmRetentions.find((each) => each.vm === vm)
  return own ? own.retention : policy.retention
}

/** A VM that stands in the policy by name and by identity has one retention: its identity's. */
const isDecidedBy = (policy: RetainedPolicy, vm: string, identity: string): boolean =>
  vm === identity || !policy.vms.includes(identity)

function vmOf(policy: RetainedPolicy, vm: string): string {
  if (policy.vms.includes(vm)) return vm
  throw argumentInvalid('vm', vm, `name a VM as it stands in ${policy.name}`)
}

function placeOf(pageToken: string): { index: number; token: string } {
  if (pageToken === '') return { index: 0, token: '' }
  const [, index, token] = /^(\d{1,5})\.(\d{0,12})$/.exec(pageToken) ?? []
  if (index !== undefined && token !== undefined) return { index: Number(index), token }
  throw argumentInvalid('page_token', pageToken, 'give the next_page_token of the page before')
}

function tokenOf(index: number, token: string, vmCount: number): string {
  if (token !== '') return `${index}.${token}`
  return index + 1 < vmCount ? `${index + 1}.` : ''
}
