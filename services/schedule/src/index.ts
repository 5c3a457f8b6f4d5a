export {
  type ScheduleConfig,
  type ScheduleLimits,
  type ScheduleSettings,
  scheduleConfig,
} from './config.ts'
export { startSchedule } from './main.ts'
