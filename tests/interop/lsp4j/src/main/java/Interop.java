import com.google.gson.JsonObject;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.eclipse.lsp4j.jsonrpc.Launcher;
import org.eclipse.lsp4j.jsonrpc.ResponseErrorException;
import org.eclipse.lsp4j.jsonrpc.services.JsonNotification;
import org.eclipse.lsp4j.jsonrpc.services.JsonRequest;

/** Calls every method of a bridge as lsp4j comes, and ends it as language clients do. Arguments: its command line. */
public final class Interop {
    private static final long PATIENCE_S = 60;

    /** What is asked of the bridge. Methods without a parameter are sent with params of null. */
    public interface Bridge {
        @JsonRequest("reportIncorrectImageCaptcha")
        CompletableFuture<JsonObject> wrongImage(Report report);

        @JsonRequest("reportIncorrectRecaptcha")
        CompletableFuture<JsonObject> wrongToken(Report report);

        @JsonRequest("reportCorrectRecaptcha")
        CompletableFuture<JsonObject> rightToken(Report report);

        @JsonRequest("reportIncorrectHcaptcha")
        CompletableFuture<JsonObject> wrongHcaptcha(Report report);

        @JsonRequest("rpc.discover")
        CompletableFuture<JsonObject> discover();

        @JsonRequest("bridge.info")
        CompletableFuture<JsonObject> info();

        @JsonRequest("bridge.status")
        CompletableFuture<JsonObject> status();

        @JsonRequest("bridge.getReport")
        CompletableFuture<JsonObject> getReport(Report report);

        @JsonRequest("bridge.listReports")
        CompletableFuture<JsonObject> listReports();

        @JsonRequest("bridge.resume")
        CompletableFuture<JsonObject> resume();

        @JsonRequest("nope")
        CompletableFuture<JsonObject> nope();

        @JsonRequest("shutdown")
        CompletableFuture<Object> shutdown();

        @JsonNotification("exit")
        void exit();
    }

    /** Params of a report. */
    public static final class Report {
        final long taskId;
        final Double completedAt = null;

        Report(long taskId) {
            this.taskId = taskId;
        }
    }

    public static void main(String[] command) throws Exception {
        ProcessBuilder builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
        Process process = builder.start();
        try {
            Launcher<Bridge> launcher =
                    new Launcher.Builder<Bridge>()
                            .setLocalService(new Object())
                            .setRemoteInterface(Bridge.class)
                            .setInput(process.getInputStream())
                            .setOutput(process.getOutputStream())
                            .create();
            launcher.startListening();
            talk(launcher.getRemoteProxy());
            demand(process.waitFor(PATIENCE_S, TimeUnit.SECONDS), "the bridge did not end after exit");
            demand(process.exitValue() == 0, "exit code " + process.exitValue());
        } finally {
            process.destroyForcibly();
        }
        System.out.println("lsp4j: every method was called, and exit ended the bridge");
        System.exit(0);
    }

    private static void talk(Bridge bridge) throws Exception {
        Map<String, CompletableFuture<JsonObject>> reports =
                Map.of(
                        "image", bridge.wrongImage(new Report(1)),
                        "wrong token", bridge.wrongToken(new Report(2)),
                        "right token", bridge.rightToken(new Report(3)),
                        "hCaptcha", bridge.wrongHcaptcha(new Report(4)));
        for (Map.Entry<String, CompletableFuture<JsonObject>> entry : reports.entrySet()) {
            String outcome = await(entry.getValue()).get("outcome").getAsString();
            demand(outcome.equals("accepted"), entry.getKey() + ": " + outcome);
        }
        demand(await(bridge.info()).get("framing").getAsString().equals("header"), "framing");
        demand(await(bridge.discover()).get("openrpc").getAsString().startsWith("1."), "rpc.discover");
        demand(await(bridge.status()).getAsJsonObject("outcomes").get("accepted").getAsInt() == 4, "status");
        demand(await(bridge.getReport(new Report(1))).get("state").getAsString().equals("done"), "getReport");
        demand(await(bridge.listReports()).getAsJsonArray("reports").size() == 4, "listReports");
        demand(await(bridge.resume()).getAsJsonArray("resumed").isEmpty(), "resume");
        demand(refused(bridge.wrongImage(new Report(9_000_000_000_000_016L))) == 16, "no such task");
        demand(refused(bridge.nope()) == -32601, "no such method");
        // Its cancel is a notification of ours, whatever has become of the report.
        bridge.wrongImage(new Report(5)).cancel(true);
        demand(await(bridge.info()).get("protocol").getAsInt() == 1, "after a cancel");
        demand(bridge.shutdown().get(PATIENCE_S, TimeUnit.SECONDS) == null, "shutdown");
        bridge.exit();
    }

    private static JsonObject await(CompletableFuture<JsonObject> answer) throws Exception {
        return answer.get(PATIENCE_S, TimeUnit.SECONDS);
    }

    private static int refused(CompletableFuture<JsonObject> answer) throws Exception {
        try {
            throw new AssertionError("not refused: " + await(answer));
        } catch (ExecutionException error) {
            return ((ResponseErrorException) error.getCause()).getResponseError().getCode();
        }
    }

    private static void demand(boolean isTrue, String what) {
        if (!isTrue) {
            throw new AssertionError(what);
        }
    }
}
