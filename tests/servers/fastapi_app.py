"""A FastAPI application that echoes bodies, measured as INSTRUMENT says: not at all, by `prometheus`, or by `opentelemetry`."""

import os

from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.post("/predictions/{name}")
async def predict(name: str, request: Request):
    return Response(await request.body(), media_type="application/json")


def measure_by_opentelemetry():
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class DroppingExporter(SpanExporter):
        """Sends nothing: a collector would cost time of its own."""

        def export(self, spans):
            return SpanExportResult.SUCCESS

    traces = TracerProvider()
    traces.add_span_processor(BatchSpanProcessor(DroppingExporter()))
    metrics = MeterProvider([InMemoryMetricReader()])
    FastAPIInstrumentor.instrument_app(app, tracer_provider=traces, meter_provider=metrics)


match os.environ["INSTRUMENT"]:
    case "prometheus":
        from prometheus_fastapi_instrumentator import Instrumentator

        Instrumentator().instrument(app).expose(app)
    case "opentelemetry":
        measure_by_opentelemetry()
