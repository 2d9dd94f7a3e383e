// Calls an API with a token from brokerd over HTTP: Java 17, without a library. Usage: java App.java GRANT URL
import java.io.ByteArrayOutputStream;
import java.net.*;
import java.net.http.*;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

public class App {
    /** The header line for the API. java.net.http knows no Unix socket: HTTP/1.0 is simple enough to write and read. */
    static String broker(String method, String path, String body) throws Exception {
        String socket = System.getenv().getOrDefault("BROKERD_HTTP_SOCKET", "/run/brokerd/http.sock");
        try (SocketChannel channel = SocketChannel.open(UnixDomainSocketAddress.of(Path.of(socket)))) {
            String request = method + " " + path + " HTTP/1.0\r\nContent-Length: " + body.length() + "\r\n\r\n" + body;
            ByteBuffer out = ByteBuffer.wrap(request.getBytes(StandardCharsets.UTF_8));
            while (out.hasRemaining()) channel.write(out);
            ByteArrayOutputStream found = new ByteArrayOutputStream();
            ByteBuffer in = ByteBuffer.allocate(65536);
            while (channel.read(in) >= 0) {
                found.write(in.array(), 0, in.position());
                in.clear();
            }
            String[] answer = found.toString(StandardCharsets.UTF_8).split("\r\n\r\n", 2);
            if (!answer[0].startsWith("HTTP/1.1 200 ")) throw new Exception("no token: " + answer[1].strip());
            return answer[1].strip();
        }
    }

    static HttpResponse<String> call(String url, String header) throws Exception {
        String[] parts = header.split(": ", 2);
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).header(parts[0], parts[1]).build();
        return HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
    }

    public static void main(String[] arguments) {
        String grant = arguments[0], url = arguments[1];
        try {
            String header = broker("GET", "/v1/header/" + grant, "");
            HttpResponse<String> answer = call(url, header);
            if (answer.statusCode() == 401) { // the API refused the token before its time: report it, once
                broker("POST", "/v1/refused/" + grant, header.substring(header.lastIndexOf(' ') + 1));
                answer = call(url, broker("GET", "/v1/header/" + grant, ""));
            }
            if (answer.statusCode() != 200) throw new Exception(url + " answered " + answer.statusCode());
            System.out.print(answer.body());
        } catch (Exception error) {
            System.err.println(error.getMessage());
            System.exit(1);
        }
    }
}
