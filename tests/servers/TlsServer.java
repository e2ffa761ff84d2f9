import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

/**
 * Serves over TLS as the query of each request says, and keeps the marks of marks.py.
 *
 * <p>Arguments: port, key, certificate, and `cert` to ask for one of the client.
 */
public class TlsServer {
  private static FileOutputStream marks;

  public static void main(String[] args) throws Exception {
    marks = new FileOutputStream(System.getenv("MARKS"), true);
    boolean asksForCertificate = args.length > 3 && args[3].equals("cert");
    SSLContext context = context(Path.of(args[1]), Path.of(args[2]));
    var address = new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0]));
    HttpsServer server = HttpsServer.create(address, 0);
    server.setHttpsConfigurator(
        new HttpsConfigurator(context) {
          @Override
          public void configure(HttpsParameters parameters) {
            SSLParameters wanted = context.getDefaultSSLParameters();
            wanted.setNeedClientAuth(asksForCertificate);
            parameters.setSSLParameters(wanted);
          }
        });
    server.createContext("/", TlsServer::serve);
    server.setExecutor(Executors.newFixedThreadPool(8));
    server.start();
  }

  private static SSLContext context(Path keyFile, Path certificateFile) throws Exception {
    String pem = Files.readString(keyFile).replaceAll("-----[A-Z ]+-----|\\s", "");
    var spec = new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem));
    var key = KeyFactory.getInstance("EC").generatePrivate(spec);
    Certificate certificate;
    try (InputStream in = Files.newInputStream(certificateFile)) {
      certificate = CertificateFactory.getInstance("X.509").generateCertificate(in);
    }
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    store.setKeyEntry("server", key, new char[0], new Certificate[] {certificate});
    store.setCertificateEntry("client", certificate);
    var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(store, new char[0]);
    var trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trusted.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys.getKeyManagers(), trusted.getTrustManagers(), null);
    return context;
  }

  private static void serve(HttpExchange exchange) {
    try {
      long entered = System.nanoTime();
      byte[] got = exchange.getRequestBody().readAllBytes();
      long read = System.nanoTime();
      String query = exchange.getRequestURI().getQuery();
      Thread.sleep(number(query, "sleep_ms"));
      byte[] body = new byte[number(query, "body")];
      Arrays.fill(body, (byte) 'r');
      long begun = System.nanoTime();
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
      String row =
          String.format(
              "{\"case\":\"%s\",\"pid\":%d,\"entered_ns\":%d,\"read_ns\":%d,\"begun_ns\":%d,"
                  + "\"ended_ns\":%d,\"status\":200,\"body_bytes\":%d}\n",
              exchange.getRequestHeaders().getFirst("x-case"),
              ProcessHandle.current().pid(),
              entered,
              read,
              begun,
              System.nanoTime(),
              got.length);
      synchronized (marks) {
        marks.write(row.getBytes(StandardCharsets.UTF_8));
      }
    } catch (Exception problem) {
      problem.printStackTrace();
    }
  }

  private static int number(String query, String name) {
    Matcher matcher = Pattern.compile(name + "=(\\d+)").matcher(query);
    return matcher.find() ? Integer.parseInt(matcher.group(1)) : 0;
  }
}
