// A dashboard as Grafana publishes its types, in the form in which JSON has it: an enum is one of its texts, and a
// panel's options and fields are those of its own kind. Nothing has to be there, since Grafana fills in what is not; but
// what is there must be known. What Grafana's own export writes beyond its types is named here.
import type {
  AnnotationQuery, Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel, VariableModel,
} from "schema/dashboard/x/dashboard_types.gen";
import type * as Heatmap from "schema/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as PieChart from "schema/composable/piechart/panelcfg/x/PieChartPanelCfg_types.gen";
import type * as Stat from "schema/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as StateTimeline from "schema/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as Table from "schema/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as TimeSeries from "schema/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// `any` stays what it is: where Grafana promises nothing, nothing can be checked.
type Written<T> = 0 extends 1 & T
  ? T
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends (infer Item)[]
        ? Written<Item>[]
        : T extends object
          ? { [Key in keyof T]?: Written<T[Key]> }
          : T;

type OfKind<Kind extends string, Options, Custom> = Omit<Written<Panel>, "type" | "options" | "fieldConfig"> & {
  type: Kind;
  options: Written<Options>;
  fieldConfig: {
    defaults: Omit<Written<FieldConfig>, "custom"> & { custom?: Written<Custom> };
    overrides: Written<FieldConfigSource["overrides"]>;
  };
};

type AnyPanel =
  | OfKind<"heatmap", Heatmap.Options, Heatmap.FieldConfig>
  | OfKind<"piechart", PieChart.Options, PieChart.FieldConfig>
  | OfKind<"stat", Stat.Options, object>
  | OfKind<"state-timeline", StateTimeline.Options, StateTimeline.FieldConfig>
  | OfKind<"table", Table.Options, Table.FieldConfig>
  | OfKind<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>
  | (Written<RowPanel> & { type: "row" });

export type Drawn = Omit<Written<Dashboard>, "panels" | "templating" | "annotations"> & {
  panels: AnyPanel[];
  templating: { list: (Written<VariableModel> & { definition?: string })[] };
  annotations: { list: (Written<AnnotationQuery> & { expr: string; titleFormat: string; step: string; useValueForTime?: boolean })[] };
};
